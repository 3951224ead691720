"""Where audio sounds, at places that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.audio.activity import HOP_SECONDS, sound_activity
from las.audio.levels import runs


def tones(places, seconds, rate, noise_db=None):
    """A tone from start to end of each place, and noise so far below it."""
    time = np.arange(round(seconds * rate)) / rate
    on = np.zeros(len(time), bool)
    for start, end in places:
        on |= (time >= start) & (time < end)
    samples = 0.3 * np.sin(2 * np.pi * 300 * time) * on
    if noise_db is not None:
        level = 0.3 / 2**0.5 * 10 ** (-noise_db / 20)
        samples = samples + level * np.random.default_rng(0).normal(size=len(time))
    return samples.astype(np.float32)


PLACES = [(0.4, 0.9), (1.0, 1.6), (2.2, 2.5)]


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("noise", [None, 50.0, 20.0])
@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_tones_are_found_to_within_10_ms(rate, noise, offset):
    found = runs(sound_activity(tones(PLACES, 3.0, rate, noise) + np.float32(offset), rate))
    assert len(found) == len(PLACES)
    np.testing.assert_allclose(np.array(found) * HOP_SECONDS, PLACES, atol=0.01)


def test_clicks_are_no_sound():
    samples = tones(PLACES, 3.0, 16000)
    clicked = samples.copy()
    clicked[16000 * 2] = 0.9
    np.testing.assert_array_equal(sound_activity(clicked, 16000), sound_activity(samples, 16000))


def test_steady_noise_has_no_pauses():
    noise = np.random.default_rng(0).normal(size=48000).astype(np.float32)
    assert sound_activity(noise, 16000).all()


@given(st.integers(0, 2000), st.sampled_from([8000, 16000, 22050]), st.integers(0, 9))
def test_there_is_a_value_for_every_hop_begun(size, rate, seed):
    samples = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    assert len(sound_activity(samples, rate)) == -(-size // round(HOP_SECONDS * rate))
    assert len(sound_activity(0 * samples, rate)) == -(-size // round(HOP_SECONDS * rate))
