"""MP3 as augmentation: as long as before, in place, and like what MP3 files hold."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from las.data.codec import KILOBITS, SAMPLE_RATES, through_mp3
from las.errors import LASError


def speech_like(samples: int, rate: int, seed: int = 0) -> np.ndarray:
    """A voice gliding in pitch, its harmonics and some hiss, [S]."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / rate
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * time)) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20) if 160 * k < rate / 2)
    voiced = 0.1 * voice * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return (voiced + 0.01 * random.normal(size=samples)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(0, 5000),
    rate=st.sampled_from(SAMPLE_RATES),
    kilobits=st.sampled_from(KILOBITS),
    seed=st.integers(0, 1000),
)
def test_any_length_stays_and_nothing_is_left_to_chance(length, rate, kilobits, seed):
    samples = speech_like(length, rate, seed)
    before = samples.copy()
    found = through_mp3(samples, rate, kilobits)
    assert found.shape == samples.shape and found.dtype == np.float32
    assert np.isfinite(found).all() and np.array_equal(samples, before)
    assert np.array_equal(found, through_mp3(samples, rate, kilobits))


@pytest.mark.parametrize("rate", SAMPLE_RATES)
@pytest.mark.parametrize("kilobits", KILOBITS)
def test_nothing_moves(rate, kilobits):
    samples = speech_like(2 * rate, rate)
    found = through_mp3(samples, rate, kilobits)
    middle = slice(2000, 2 * rate - 2000)
    products = {
        lag: float(np.dot(samples[middle], np.roll(found, lag)[middle]))
        for lag in range(-1500, 1501)
    }
    assert max(products, key=products.__getitem__) == 0
    # To the last sample: what is at the end of the audio is not lost.
    assert np.corrcoef(samples[-800:], found[-800:])[0, 1] > 0.9


def test_more_bits_are_nearer_to_the_sound_and_few_empty_the_upper_bands():
    rate = 16000
    samples = speech_like(3 * rate, rate)
    outputs = [through_mp3(samples, rate, kilobits) for kilobits in KILOBITS]
    errors = [float(np.square(samples - found).mean()) for found in outputs]
    assert errors == sorted(errors, reverse=True) and errors[0] > 2 * errors[-1]

    def upper(audio):
        spectrum = np.abs(np.fft.rfft(audio)) ** 2
        return spectrum[int(0.9 * len(spectrum)) :].mean()

    assert upper(outputs[KILOBITS.index(24)]) < 1e-3 * upper(samples)
    assert upper(outputs[KILOBITS.index(24)]) < 1e-2 * upper(outputs[KILOBITS.index(48)])


@pytest.mark.parametrize("kilobits", KILOBITS)
def test_the_bit_rate_is_what_it_says(monkeypatch, kilobits):
    sizes = []
    read = soundfile.read

    def spy(file: io.BytesIO, **options):
        sizes.append(len(file.getvalue()))
        return read(file, **options)

    monkeypatch.setattr(soundfile, "read", spy)
    through_mp3(speech_like(16000 * 10, 16000), 16000, kilobits)
    assert sizes[0] * 8 / 10 == pytest.approx(1000 * kilobits, rel=0.03)


@pytest.mark.parametrize("rate", [6000, 44100, 96000])
def test_sample_rates_that_mp3_does_not_have(rate):
    with pytest.raises(LASError, match=f"data.mp3: not possible at {rate} Hz"):
        through_mp3(np.zeros(1000, np.float32), rate, 24)
