"""Levels of audio every 10 ms, and runs of a boolean mask."""

import numpy as np

HOP_SECONDS = 0.01
SILENT_DBFS = -70.0  # audio below this throughout is silence, and is not recognised
_FRAME_SECONDS = 0.05  # longer than a click, shorter than a pause between words
_QUIETEST = 1e-7  # minimum amplitude, so that digital silence has a level


def levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level in dB of full scale every 10 ms, [S / hop + 1].

    Bit-identical to ``librosa.feature.rms`` and ``librosa.amplitude_to_db``, whose import takes
    longer than the transcription of a short file.
    """
    hop = round(HOP_SECONDS * rate)
    frame = round(_FRAME_SECONDS * rate)
    padded = np.pad(samples, frame // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    rms = np.sqrt(np.square(frames).mean(1))
    return 10.0 * np.log10(np.maximum(_QUIETEST**2, np.square(rms)))


def silent(samples: np.ndarray, rate: int, limit: float = SILENT_DBFS) -> bool:
    """Whether samples [S] are below a level in dB of full scale throughout."""
    if not len(samples):
        return True
    # The level of a frame is at least that of its loudest sample among zeros.
    lowest = float(np.abs(samples).max()) / round(_FRAME_SECONDS * rate) ** 0.5
    return lowest < 10 ** (limit / 20) and bool(levels(samples, rate).max() < limit)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Starts and ends of the runs of True in a mask [T]."""
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(np.int8), 1)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def quietest(level: np.ndarray, start: float, end: float) -> int:
    """Index of the lowest level between two times in seconds; the last one of equal levels."""
    first = min(max(0, round(start / HOP_SECONDS)), len(level) - 1)
    last = max(first + 1, min(len(level), round(end / HOP_SECONDS)))
    return last - 1 - int(level[first:last][::-1].argmin())
