"""Times of characters: the posterior of CTC, against a sum over all of its paths."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from las.text.characters import ALPHABET, BLANK, Characters
from las.text.subwords import Subwords
from las.transcription.character_times import character_times, medians

TEXT = Characters()
FRAME = 0.02


def spikes(units, places, frames, sharp=0.99):
    """Log-probabilities of a head that hears ids in frames, and blanks in all others."""
    probabilities = np.full((frames, len(units)), (1 - sharp) / (len(units) - 1))
    path = np.full(frames, BLANK)
    for frame, id in places:
        path[frame] = id
    probabilities[np.arange(frames), path] = sharp
    return torch.tensor(np.log(probabilities), dtype=torch.float32)


@torch.inference_mode()
def test_letters_are_at_their_spikes():
    text, places = "ALL IN", [3, 9, 14, 20, 31, 40]
    ctc = spikes(TEXT, zip(places, TEXT.encode(text), strict=True), 50)
    found = character_times(ctc, text, TEXT, FRAME)
    np.testing.assert_allclose(found, (np.array(places) + 0.5) * FRAME, atol=FRAME / 4)
    # One that the head did not write is between its neighbours.
    missing = spikes(TEXT, [(3, TEXT.encode("A")[0]), (30, TEXT.encode("C")[0])], 50)
    a, b, c = character_times(missing, "ABC", TEXT, FRAME) / FRAME - 0.5
    assert (abs(a - 3), abs(c - 30)) < (0.5, 0.5) and a + 1 < b < c - 1


def test_letters_of_a_piece_are_about_its_spike():
    units = Subwords(ALPHABET, ["TH", "THE", " THE", "AT"])
    ids = units.encode("THE THE CAT")
    assert len(ids) < 7
    ctc = spikes(units, zip(range(10, 100, 15), ids, strict=False), 100)
    found = character_times(ctc, "THE THE CAT", units, FRAME)
    assert len(found) == len("THE THE CAT")
    assert (np.diff(found) >= 0).all()
    assert found[1] == pytest.approx(10.5 * FRAME, abs=0.01)
    assert found[0] < found[1] - 0.04 and found[2] > found[1] + 0.04


def test_a_head_that_does_not_bear_the_text_out_is_not_asked():
    ctc = spikes(TEXT, [(3, TEXT.encode("A")[0])], 30)
    assert character_times(ctc, "A", TEXT, FRAME) is not None
    assert character_times(ctc, "", TEXT, FRAME) is None
    assert character_times(ctc[:2], "ABC", TEXT, FRAME) is None
    assert character_times(ctc, "NOTHING OF THE KIND", TEXT, FRAME) is None
    untrained = torch.randn(30, len(TEXT), generator=torch.Generator().manual_seed(0))
    assert character_times((0.1 * untrained).log_softmax(-1), "AB", TEXT, FRAME) is None
    assert character_times(torch.full((30, len(TEXT)), np.nan), "AB", TEXT, FRAME) is None


@given(st.text("AB", min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_the_posterior_is_the_sum_over_all_paths(text, seed):
    """Places of the text count as different characters even where the characters are the same."""
    T, ids = 5, TEXT.encode(text)
    random = np.random.default_rng(seed)
    logits = random.normal(size=(T, len(TEXT)))
    logits[:, [BLANK, *ids]] += 6.0  # or the head would count as untrained
    ctc = torch.tensor(logits).log_softmax(-1)
    weights = np.zeros((len(ids), T))
    for path in itertools.product(range(len(ids) + 1), repeat=T):
        said = [place for place, _ in itertools.groupby(path) if place]
        if said == list(range(1, len(ids) + 1)):
            labels = [([BLANK, *ids])[place] for place in path]
            chance = np.exp(sum(float(ctc[t, label]) for t, label in enumerate(labels)))
            for t, place in enumerate(path):
                if place:
                    weights[place - 1, t] += chance
    found = character_times(ctc, text, TEXT, FRAME)
    np.testing.assert_allclose(found, medians(weights) * FRAME, atol=1e-4)


@given(st.text(" AB", min_size=1, max_size=12), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_times_never_go_back_and_stay_inside(text, frames, seed):
    random = np.random.default_rng(seed)
    ctc = torch.tensor(random.normal(scale=9.0, size=(frames, len(TEXT)))).log_softmax(-1)
    found = character_times(ctc, text, TEXT, FRAME)
    if found is not None:
        assert len(found) == len(text)
        assert (np.diff(found) >= 0).all()
        assert found[0] >= 0 and found[-1] <= frames * FRAME * (1 + 1e-12)
