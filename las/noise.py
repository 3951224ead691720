"""Background noise for training: no room is silent, not even between words.

A model that was trained on clean recordings alone loses words to noise that a listener hardly
hears (recipes/general/RESULTS.md).
"""

import numpy as np
import torch
import torchaudio

DECIBELS = (10.0, 50.0)  # of the speech above the noise: from a noisy room to a quiet one
TILTS = (0.0, 2.0)  # the noise's power falls as 1 / frequency**tilt: white, pink at 1, brown at 2


def add_noise(
    samples: np.ndarray, decibels: float, tilt: float, random: np.random.Generator
) -> np.ndarray:
    """Add stationary Gaussian noise.

    Args:
        samples: [S] float32; nothing is added to digital silence.
        decibels: of the speech above the noise, over the whole utterance with its pauses.
        tilt: the noise's power falls as 1 / frequency**tilt.
        random: where the noise is drawn from.

    Returns:
        [S] float32.
    """
    spectrum = np.fft.rfft(random.standard_normal(len(samples), np.float32))
    # Below a hundredth of the band brown noise would be all that there is, and nothing to hear.
    bins = np.maximum(np.arange(len(spectrum)), 0.01 * len(spectrum))
    noise = np.fft.irfft(spectrum * bins ** (-tilt / 2), len(samples)).astype(np.float32)
    return torchaudio.functional.add_noise(
        torch.from_numpy(samples), torch.from_numpy(noise), torch.tensor(decibels)
    ).numpy()


def add_random_noise(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Add noise [S] to samples [S], its level and spectrum drawn from ``random`` as well."""
    return add_noise(samples, random.uniform(*DECIBELS), random.uniform(*TILTS), random)
