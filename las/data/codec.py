"""MP3 as augmentation of training audio."""

import io

import numpy as np
import soundfile

from las.errors import LASError

# Of MPEG-2 and 2.5; the higher ones of MPEG-1 have no such low bit rates.
SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000)
KILOBITS = (16, 24, 32, 40, 48)
_DELAY = 1105  # samples: 576 of LAME and 529 of the decoder


def through_mp3(samples: np.ndarray, sample_rate: int, kilobits: int) -> np.ndarray:
    """Encode as MP3 of a constant bit rate and decode again.

    Low bit rates remove upper bands of the spectrum and leave holes in others.

    Args:
        samples: float32 ``[S]``.
        sample_rate: in Hz, one of :data:`SAMPLE_RATES`.
        kilobits: per second, one of :data:`KILOBITS`.

    Returns:
        float32 ``[S]``, aligned with ``samples``.

    Raises:
        LASError: MP3 has no such sample rate.
    """
    check_rate(sample_rate)
    # libsndfile gives a bit rate by its position between the highest (0) and the lowest (1).
    highest = 160 if sample_rate >= 16000 else 64
    file = io.BytesIO()
    soundfile.write(
        file,
        # Zeros at the end, as the last frame is not always decoded.
        np.pad(samples, (0, 2 * _DELAY)),
        sample_rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT",
        compression_level=(highest - kilobits) / (highest - 8),
    )
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    # The decoder removes the delay if a header gives it. Frames of low bit rates are too small for
    # that header; the length is then that of whole frames.
    start = 0 if len(decoded) == len(samples) + 2 * _DELAY else _DELAY
    return decoded[start : start + len(samples)]


def check_rate(sample_rate: int) -> None:
    """Check that MP3 has a sample rate.

    Raises:
        LASError: it has not.
    """
    if sample_rate not in SAMPLE_RATES:
        rates = ", ".join(map(str, SAMPLE_RATES))
        raise LASError(
            f"data.mp3: not possible at {sample_rate} Hz; set data.mp3 to 0, or "
            f"frontend.sample_rate to one of {rates}"
        )
