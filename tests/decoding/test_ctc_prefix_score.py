"""CTC prefix scores against sums over every alignment."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.decoding.ctc_prefix_score import CTCPrefixScorer, CTCState
from las.text.characters import BLANK, EOS


def random_log_probs(frames: int, vocabulary: int, seed: int, sharpness: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(frames, vocabulary, generator=generator)
    return logits.log_softmax(-1)


def collapse(path):
    return tuple(i for i, _ in itertools.groupby(path) if i != BLANK)


def texts(log_probs) -> dict[tuple, float]:
    """Probability of every text, by enumeration of the alignments."""
    found: dict[tuple, float] = {}
    table = log_probs.double().exp().tolist()
    for path in itertools.product(range(len(table[0])), repeat=len(table)):
        p = math.prod(row[i] for row, i in zip(table, path, strict=True))
        found[collapse(path)] = found.get(collapse(path), 0.0) + p
    return found


def log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf


def spell(scorer: CTCPrefixScorer, prefix, row: int = 0, batch: int = 1) -> CTCState:
    """State of utterance `row` after a prefix, one beam; other utterances get nonsense."""
    state = scorer.start(1)
    for token in prefix:
        tokens = torch.full((batch, 1), 2)
        tokens[row] = token
        state = scorer.extend(state, torch.zeros(batch, 1, dtype=torch.long), tokens)
    return state


@given(st.integers(1, 5), st.integers(3, 4), st.integers(0, 1000))
@settings(max_examples=25)
def test_prefixes_and_ends_against_all_alignments(frames, vocabulary, seed):
    log_probs = random_log_probs(frames, vocabulary, seed)
    known = texts(log_probs)
    scorer = CTCPrefixScorer(log_probs[None], torch.tensor([frames]))
    # The end of sentence is a character of the CTC head like any other, but no prefix holds it.
    for length in range(4):
        for prefix in itertools.product(range(2, vocabulary), repeat=length):
            scores = scorer.score(spell(scorer, prefix))[0, 0].tolist()
            assert scores[BLANK] == -math.inf
            assert scores[EOS] == pytest.approx(log(known.get(prefix, 0.0)), rel=1e-9, abs=1e-9)
            for token in range(2, vocabulary):
                longer = (*prefix, token)
                total = sum(p for text, p in known.items() if text[: length + 1] == longer)
                assert scores[token] == pytest.approx(log(total), rel=1e-6, abs=1e-6)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 5), st.data())
@settings(max_examples=25)
def test_padding_and_neighbours_change_nothing(lengths, extra, data):
    vocabulary = 5
    rows = [random_log_probs(n, vocabulary, seed) for seed, n in enumerate(lengths)]
    batch = torch.full((len(rows), max(lengths) + extra, vocabulary), 3.0)  # padding: nonsense
    for row, log_probs in enumerate(rows):
        batch[row, : len(log_probs)] = log_probs
    together = CTCPrefixScorer(batch, torch.tensor(lengths))
    row = data.draw(st.integers(0, len(rows) - 1))
    prefix = data.draw(st.lists(st.integers(2, 4), max_size=5))
    alone = CTCPrefixScorer(rows[row][None], torch.tensor(lengths[row : row + 1]))
    expected = alone.score(spell(alone, prefix))[0]
    got = together.score(spell(together, prefix, row, len(rows)))[row]
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_beams_are_reordered():
    scorer = CTCPrefixScorer(
        torch.stack([random_log_probs(6, 5, seed) for seed in (1, 2)]), torch.tensor([6, 4])
    )
    state = scorer.extend(
        scorer.start(3), torch.zeros(2, 3, dtype=torch.long), torch.tensor([[2, 3, 4], [4, 2, 3]])
    )
    state = scorer.extend(
        state, torch.tensor([[2, 0, 0], [1, 1, 2]]), torch.tensor([[2, 2, 3]] * 2)
    )
    scores = scorer.score(state)
    prefixes = [[(4, 2), (2, 2), (2, 3)], [(2, 2), (2, 2), (3, 3)]]
    for row, column in itertools.product(range(2), range(3)):
        alone = scorer.score(spell(scorer, prefixes[row][column], row, 2))[row, 0]
        torch.testing.assert_close(scores[row, column], alone, rtol=1e-9, atol=1e-9)


def test_what_does_not_fit_is_impossible_and_never_nan():
    scorer = CTCPrefixScorer(random_log_probs(2, 4, 0)[None], torch.tensor([2]))
    for prefix in [(2, 2), (2, 3, 2), (2, 2, 2, 2)]:
        scores = scorer.score(spell(scorer, prefix))
        assert not scores.isnan().any()
        assert (scores[..., 2:] == -math.inf).all()
        assert scores[0, 0, EOS] == -math.inf


def test_long_and_certain_utterances_keep_their_precision():
    """A thousand frames, nearly all of the probability on one alignment."""
    frames, truth = 1000, [2, 3, 3, 4] * 40
    log_probs = torch.full((frames, 5), -60.0)
    log_probs[:, BLANK] = 0.0
    for position, token in enumerate(truth):
        log_probs[6 * position + 3] = -60.0
        log_probs[6 * position + 3, token] = 0.0
    scorer = CTCPrefixScorer(log_probs[None], torch.tensor([frames]))
    state = scorer.start(1)
    for token in truth:
        scores = scorer.score(state)[0, 0]
        assert int(scores.argmax()) == token
        assert float(scores[token]) == pytest.approx(0.0, abs=1e-6)
        state = scorer.extend(state, torch.zeros(1, 1, dtype=torch.long), torch.tensor([[token]]))
    assert float(scorer.score(state)[0, 0, EOS]) == pytest.approx(0.0, abs=1e-6)
    total = torch.nn.functional.ctc_loss(
        log_probs[:, None].double(),
        torch.tensor([truth]),
        torch.tensor([frames]),
        torch.tensor([len(truth)]),
        reduction="sum",
    )
    assert float(scorer.score(state)[0, 0, EOS]) == pytest.approx(-float(total), abs=1e-9)


def test_padding_does_not_cost_precision():
    """A prefix that is certain only once all frames are used, and one more character."""
    log_probs = torch.full((20, 4), -690.0)
    log_probs[:-1, BLANK] = log_probs[-1, 2] = 0.0
    log_probs[:, 3] = -60.0
    padded = torch.nn.functional.pad(log_probs, (0, 0, 0, 5))
    results = []
    for frames in (log_probs, padded):
        scorer = CTCPrefixScorer(frames[None], torch.tensor([20]))
        results.append(scorer.score(spell(scorer, (2,)))[0, 0, 3])
    assert float(results[0]) == pytest.approx(-750 + math.log(190), rel=1e-9)
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
