"""Loops, missing text and attention that goes back are found, and good texts pass."""

import numpy as np
import pytest
import torch

from las.decoding.hypothesis import Hypothesis
from las.text.characters import EOS
from las.transcription import quality
from las.transcription.quality import Quality, assess, attention_centres, count_repeats
from tests.transcription.decoded import FRAME, RATE, chunk, hypothesis, spread


def assessed(found: Hypothesis, seconds: float, speech=None) -> Quality:
    return assess(found, attention_centres(found, FRAME), chunk(seconds, speech=speech), RATE)


def test_centres_are_medians():
    alignment = torch.zeros(3, 2, 10)
    alignment[0, :, 4] = 1.0
    alignment[1, 0, 2:7] = 0.2
    alignment[1, 1, 4] = 1.0
    alignment[2, :, 0], alignment[2, :, 9] = 0.3, 0.7  # a far frame with little weight
    found = Hypothesis("AB", 0.0, True, alignment, torch.tensor([4, 5, EOS]), torch.zeros(3))
    np.testing.assert_allclose(attention_centres(found, 0.1), [0.45, 0.45, 0.95], atol=1e-6)
    nothing = Hypothesis("", 0.0, False, alignment[:0], torch.zeros(0), torch.zeros(0))
    assert attention_centres(nothing, 0.1).shape == (0,)


def test_a_good_window():
    text = "THE CAT SAT ON THE MAT"
    found = assessed(hypothesis(text, spread(text, 0, 3), 3.0), 3.0)
    assert found.good and found.doubtful_seconds == 0
    assert found.finished and found.repeats == 1 and found.backward_seconds == 0
    assert found.untranscribed_seconds < 0.3


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("A", 1),
        ("A B C", 1),
        ("A A A", 3),
        ("A B A B A", 2),
        ("X A B A B A B Y", 3),
        ("FIVE FIVE TWO TWO", 2),
    ],
)
def test_repeats(text, count):
    assert count_repeats(text.split()) == count


def test_loops():
    text = "ON THE MAT " * 8
    found = assessed(hypothesis(text, spread(text, 0, 5), 5.0), 5.0)
    assert found.looped and found.compression > quality.MAX_COMPRESSION and found.repeats == 8
    assert found.doubtful_seconds == 5.0
    # Short enough for zlib, too often for anyone.
    text = "GO GO GO GO GO"
    found = assessed(hypothesis(text, spread(text, 0, 2), 2.0), 2.0)
    assert found.looped and found.compression < quality.MAX_COMPRESSION
    text = "ONE TWO"
    assert assessed(hypothesis(text, spread(text, 0, 1), 1.0, finished=False), 1.0).looped


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (1.5, 3.5), (0.7, 3.5)])
def test_an_early_stop_a_late_start_and_a_gap(start, end):
    text = "THE CAT SAT ON THE MAT"
    times = spread(text, start, end)
    if start == 0.7:
        times = [*spread(text[:11], 0.0, 1.2), *spread(text[11:], 2.3, 3.5)]
    found = assessed(hypothesis(text, times, 3.5), 3.5)
    assert not found.good and not found.looped
    assert 1.0 < found.untranscribed_seconds < 1.7
    assert found.doubtful_seconds == found.untranscribed_seconds
    # Where there is no speech there is nothing to write.
    speech = np.zeros(351, bool)
    for time in times:
        speech[int(100 * time) : int(100 * time) + 15] = True
    assert assessed(hypothesis(text, times, 3.5), 3.5, speech).good


def test_speech_without_text():
    found = assessed(hypothesis("", [], 2.0), 2.0)
    assert found.untranscribed_seconds == pytest.approx(
        2.0, abs=0.02
    ) and found.doubtful_seconds == pytest.approx(2.0, 0.02)
    assert assessed(hypothesis("", [], 2.0), 2.0, np.zeros(201, bool)).good


def test_attention_that_goes_back():
    text = "THE CAT THE CAT"
    times = [*spread("THE CAT", 0, 3), 3.0, *spread("THE CAT", 0, 3)]
    found = assessed(hypothesis(text, times, 3.2), 3.2)
    assert not found.good and 1.1 < found.backward_seconds < 2.0
    assert found.doubtful_seconds == found.backward_seconds
    # A character or a space may look anywhere.
    times = spread(text, 0, 2)
    times[3], times[13] = 2.0, 0.0
    assert assessed(hypothesis(text, times, 2.0), 2.0).good


def test_without_attention_only_the_text_is_assessed():
    text = "THE CAT"
    found = hypothesis(text, spread(text, 0, 0.03), 0.03)
    assert found.alignment.shape[-1] == 1
    assert assessed(found, 5.0).good
