"""Synthetic noise for training.

A model that was trained on clean recordings only loses words at noise that people hardly notice
(recipes/general/RESULTS.md).
"""

import numpy as np
import torch
import torchaudio

DECIBELS = (10.0, 50.0)  # signal-to-noise ratio, from a noisy room to a quiet one
TILTS = (0.0, 2.0)  # the noise's power falls as 1 / frequency**tilt: white, pink at 1, brown at 2


def add_noise(
    samples: np.ndarray, decibels: float, tilt: float, random: np.random.Generator
) -> np.ndarray:
    """Add stationary Gaussian noise.

    Args:
        samples: [S] float32; nothing is added to digital silence.
        decibels: signal-to-noise ratio over the whole utterance, pauses included.
        tilt: the noise's power falls as 1 / frequency**tilt.
        random: generator of the noise.

    Returns:
        [S] float32.
    """
    noise = _coloured(len(samples), tilt, random)
    return torchaudio.functional.add_noise(
        torch.from_numpy(samples), torch.from_numpy(noise), torch.tensor(decibels)
    ).numpy()


def _coloured(count: int, tilt: float, random: np.random.Generator) -> np.ndarray:
    """Gaussian noise [count] float32 whose power falls as 1 / frequency**tilt."""
    from scipy.fft import irfft, next_fast_len, rfft  # slow to import

    size = next_fast_len(max(count, 1), real=True)  # other lengths take up to ten times as long
    spectrum = rfft(random.standard_normal(size, np.float32))
    # Without a lower limit all power of brown noise would be at inaudible frequencies.
    bins = np.maximum(np.arange(len(spectrum), dtype=np.float32), 0.01 * len(spectrum))
    return irfft(spectrum * bins ** np.float32(-tilt / 2), size)[:count]


def add_random_noise(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Add noise of random level and spectrum to samples [S]."""
    return add_noise(samples, random.uniform(*DECIBELS), random.uniform(*TILTS), random)


def random_sound(count: int, sample_rate: int, random: np.random.Generator) -> np.ndarray:
    """A random sound that is not speech: silence, noise, swelling noise, tones or clicks.

    Args:
        count: number of samples.
        sample_rate: in Hz.
        random: generator of the sound.

    Returns:
        [count] float32.
    """
    time = np.arange(count, dtype=np.float32) / sample_rate
    kind = random.choice(["silence", "noise", "swell", "tones", "clicks"])
    sound = np.zeros(count, np.float32)
    if kind in ("noise", "swell"):
        sound = _coloured(count, random.uniform(*TILTS), random)
    if kind == "swell":
        rate, phase = random.uniform(0.1, 5.0), random.uniform(0, 2 * np.pi)
        sound *= 0.5 * (1 + np.sin(2 * np.pi * rate * time + phase, dtype=np.float32))
    if kind == "tones":
        for _ in range(random.integers(1, 5)):
            pitch = 60 * 2 ** random.uniform(0, 6)  # Hz, up to 3840
            sound += random.uniform(0.1, 1) * np.sin(2 * np.pi * pitch * time, dtype=np.float32)
    if kind == "clicks" and count:
        places = random.integers(
            0, count, max(1, int(count / sample_rate * random.uniform(0.5, 8)))
        )
        sound[places] = random.uniform(-1, 1, len(places))
    peak = float(np.abs(sound).max(initial=0))
    if peak == 0:
        return sound
    return (sound * (10 ** random.uniform(-3, -0.1) / peak)).astype(np.float32)
