"""Levels of audio, and runs of a mask."""

import librosa
import numpy as np
import pytest

from las.audio.levels import levels, quietest, runs

RATE = 8000


@pytest.mark.parametrize("rate", [2000, 8000, 16000, 44100])
@pytest.mark.parametrize("size", [1, 79, 800, 16001])
@pytest.mark.parametrize("volume", [0.0, 1e-9, 0.1, 1e9])
def test_levels_are_those_of_librosa_to_the_bit(rate, size, volume):
    noise = np.random.default_rng(size).normal(size=size) * np.linspace(0, volume, size)
    samples = noise.astype(np.float32)
    rms = librosa.feature.rms(
        y=samples, frame_length=round(0.05 * rate), hop_length=round(0.01 * rate)
    )
    expected = librosa.amplitude_to_db(rms[0], ref=1.0, amin=1e-7, top_db=None)
    found = levels(samples, rate)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_levels_and_masks():
    level = levels(np.full(RATE, 0.1, np.float32), RATE)
    assert len(level) == 101
    np.testing.assert_allclose(level[5:-5], -20.0, atol=0.01)
    assert levels(np.zeros(RATE, np.float32), RATE).max() < -100
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]
    assert runs(np.zeros(3, bool)) == []
    assert quietest(np.array([3.0, 1.0, 2.0, 1.0, 5.0]), 0.0, 0.05) == 3
    assert quietest(np.array([3.0, 1.0, 2.0, 1.0, 5.0]), 0.02, 0.03) == 2
    assert quietest(np.array([3.0, 1.0]), 5.0, 6.0) == 1
