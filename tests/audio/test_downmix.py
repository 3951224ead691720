"""Channels are averaged; where that would leave silence, some are turned over first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.audio import downmix, reader
from tests.audio.test_reader import speech_like, write

RATE = 16000
VOICE = speech_like(4.0)


def noise(seed, scale=0.1):
    return np.random.default_rng(seed).normal(scale=scale, size=len(VOICE)).astype(np.float32)


def mono(samples, sizes=()):
    blocks = np.split(samples, np.cumsum(sizes)) if len(sizes) else [samples]
    return np.concatenate(list(downmix.mono([b for b in blocks if len(b)], RATE)))


@pytest.mark.parametrize("gain", [1.0, 0.8, 1.2])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_a_channel_that_is_upside_down(tmp_path, gain, name):
    path = write(tmp_path / name, np.stack([VOICE, -gain * VOICE], 1))
    found = reader.load(path)
    assert np.std(found) > 0.8 * np.std(VOICE)
    assert abs(np.corrcoef(found, VOICE)[0, 1]) > 0.98


def test_in_noise_of_each_channel():
    samples = np.stack([VOICE + noise(1, 0.02), -VOICE + noise(2, 0.02)], 1)
    assert np.corrcoef(mono(samples), VOICE)[0, 1] > 0.99


def test_one_of_four_pairs():
    samples = np.stack([VOICE, -VOICE, VOICE, -VOICE], 1)
    np.testing.assert_allclose(mono(samples), VOICE, atol=1e-6)


def test_only_where_and_as_long_as_they_cancel():
    quiet = np.zeros(RATE, np.float32)
    left = np.concatenate([quiet, VOICE, quiet, VOICE])
    right = np.concatenate([quiet, -VOICE, quiet, -VOICE])
    np.testing.assert_allclose(mono(np.stack([left, right], 1)), left, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 16])
def test_others_are_averaged_to_the_bit(channels):
    alone = np.zeros((len(VOICE), channels), np.float32)
    alone[:, -1] = VOICE
    unlike = np.stack([noise(seed) for seed in range(channels)], 1)
    alike = np.stack([VOICE + noise(seed, 0.01) for seed in range(channels)], 1)
    for samples in (alone, unlike, alike, np.zeros_like(alone)):
        np.testing.assert_array_equal(mono(samples), samples.mean(1))
        # As the batches of a training have them.
        turned = np.ascontiguousarray(samples.T)
        np.testing.assert_array_equal(mono(turned.T), turned.mean(0, dtype="float32"))


@given(st.lists(st.integers(0, 9000), max_size=9), st.sampled_from(["upside", "both", "noise"]))
def test_the_cut_into_blocks_changes_nothing(sizes, kind):
    right = {"upside": -VOICE, "both": np.append(VOICE[:20000], -VOICE[20000:]), "noise": noise(3)}
    samples = np.stack([VOICE, right[kind]], 1)
    np.testing.assert_array_equal(mono(samples, sizes), mono(samples))
