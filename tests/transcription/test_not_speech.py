"""What is not speech has no text, with the bundled model."""

import numpy as np
import pytest

import las

RATE = 16000
TIME = np.arange(8 * RATE) / RATE


def coloured(tilt: float) -> np.ndarray:
    """Noise [S] whose power falls as 1 / frequency**tilt."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(len(TIME)))
    return np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** (tilt / 2))


@pytest.fixture(scope="module")
def recognizer():
    return las.load()


@pytest.mark.filterwarnings("ignore::las.errors.LASWarning")
@pytest.mark.parametrize(
    "sound",
    [coloured(0.0), coloured(1.0), coloured(2.0), np.sin(2 * np.pi * 440 * TIME), 0 * TIME],
    ids=["white", "pink", "brown", "tone", "silence"],
)
def test_it_has_no_text(recognizer, sound):
    sound = 0.3 * sound / max(1e-9, np.abs(sound).max())
    assert recognizer.transcribe(sound.astype(np.float32), sample_rate=RATE).text == ""
