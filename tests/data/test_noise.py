"""Noise of training: its level, its spectrum, and that nothing but the draw decides them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from las.data.noise import DECIBELS, add_noise, add_random_noise


def speech(samples: int = 32000) -> np.ndarray:
    return (0.1 * np.sin(0.05 * np.arange(samples))).astype(np.float32)


@pytest.mark.parametrize("tilt", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("decibels", [10.0, 50.0])
def test_level(decibels, tilt):
    samples = speech()
    noise = add_noise(samples, decibels, tilt, np.random.default_rng(0)) - samples
    measured = 10 * np.log10((samples**2).mean() / (noise**2).mean())
    assert measured == pytest.approx(decibels, abs=0.2)


@pytest.mark.parametrize("tilt", [0.0, 1.0, 2.0])
def test_spectrum(tilt):
    samples = speech(1 << 17)
    noise = add_noise(samples, 10.0, tilt, np.random.default_rng(0)) - samples
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[len(power) >> k : len(power) >> k - 1].mean() for k in (4, 3, 2, 1)]
    slopes = np.diff(10 * np.log10(octaves))
    assert slopes == pytest.approx([-3.01 * tilt] * 3, abs=0.5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(1, 5000))
def test_same_draw_same_noise(seed, samples):
    clean = speech(samples)
    before = clean.copy()
    found = add_random_noise(clean, np.random.default_rng(seed))
    assert found.dtype == np.float32 and found.shape == clean.shape
    assert np.isfinite(found).all()
    assert np.array_equal(clean, before)
    assert np.array_equal(found, add_random_noise(clean, np.random.default_rng(seed)))
    silence = np.zeros(samples, np.float32)
    assert not add_random_noise(silence, np.random.default_rng(seed)).any()


def test_levels_cover_their_range():
    samples = speech(2000)
    levels = []
    for seed in range(300):
        noise = add_random_noise(samples, np.random.default_rng(seed)) - samples
        levels.append(10 * np.log10((samples**2).mean() / (noise**2).mean()))
    low, high = DECIBELS
    assert low - 0.2 < min(levels) < low + 2 and high - 2 < max(levels) < high + 0.2
    assert np.mean(levels) == pytest.approx((low + high) / 2, abs=2.5)
