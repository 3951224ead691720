"""Constraints of beam search, each against its definition."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.decoding.constraints import apply_end_threshold, limit_moves, repeated_ngrams
from las.text.characters import EOS
from tests.decoding.reference_search import NEG_INF


def naive_repeated(written, size, vocabulary):
    blocked = [False] * vocabulary
    for token in range(vocabulary):
        longer = [*written, token]
        gram = longer[len(longer) - size :]
        if len(longer) > size:
            blocked[token] = any(longer[i : i + size] == gram for i in range(len(longer) - size))
    return blocked


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(1, 4))
@settings(max_examples=100)
def test_repeated_ngrams(written, size):
    # Two hypotheses of different history in one tensor.
    pair = torch.tensor([[written, written[::-1]]], dtype=torch.long).view(1, 2, len(written))
    got = repeated_ngrams(pair, size, 3)[0].tolist()
    assert got == [naive_repeated(w, size, 3) for w in (written, written[::-1])]


def test_an_end_has_to_beat_the_best_character_by_the_threshold():
    attention = torch.tensor([[[-9.0, -3.0, -2.0, -5.0]]])  # blank, end, two characters
    for threshold, kept in ((1.0, False), (1.4, False), (1.6, True)):
        total = attention.clone()
        apply_end_threshold(total, attention, threshold)
        assert (total[0, 0, EOS] > NEG_INF) == kept
        assert torch.equal(total[..., 2:], attention[..., 2:])


def test_moves_beyond_the_limits_drop_characters_but_no_ends():
    total = torch.zeros(1, 3, 4)
    moves = torch.tensor([[-1.0, 0.2, 3.0]])
    found = limit_moves(total, moves, max_back=0.5, max_ahead=2.0)
    assert (found[0, 1] == 0).all()
    for beam in (0, 2):
        assert found[0, beam, EOS] == 0 and (found[0, beam, EOS + 1 :] == NEG_INF).all()
    far = torch.full((1, 3), 9.0)
    assert torch.equal(limit_moves(total, far, 0.5, 2.0), total)
