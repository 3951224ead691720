"""How loud audio is every 10 ms, and where a mask of frames is True."""

import numpy as np

HOP_SECONDS = 0.01
SILENT_DBFS = -70.0  # audio that stays below is silence, and is not decoded
_FRAME_SECONDS = 0.05  # a click is shorter, a pause between words longer
_QUIETEST = 1e-7  # amplitude; digital silence has a level, too


def levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level [S / hop + 1] in dB of full scale around every 10 ms.

    To the bit those of ``librosa.feature.rms`` and ``librosa.amplitude_to_db``, which would take
    longer to import than a short file to transcribe.
    """
    hop = round(HOP_SECONDS * rate)
    frame = round(_FRAME_SECONDS * rate)
    padded = np.pad(samples, frame // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    rms = np.sqrt(np.square(frames).mean(1))
    return 10.0 * np.log10(np.maximum(_QUIETEST**2, np.square(rms)))


def silent(samples: np.ndarray, rate: int, limit: float = SILENT_DBFS) -> bool:
    """Whether audio [S] stays below a level in dB of full scale everywhere."""
    if not len(samples):
        return True
    # The level around a sample is at least that of the sample alone among zeros.
    alone = float(np.abs(samples).max()) / round(_FRAME_SECONDS * rate) ** 0.5
    return alone < 10 ** (limit / 20) and bool(levels(samples, rate).max() < limit)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Starts and ends of the stretches of True in a mask [T]."""
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(np.int8), 1)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def quietest(level: np.ndarray, start: float, end: float) -> int:
    """Index of the lowest level between two times in seconds, the last of equals."""
    first = min(max(0, round(start / HOP_SECONDS)), len(level) - 1)
    last = max(first + 1, min(len(level), round(end / HOP_SECONDS)))
    return last - 1 - int(level[first:last][::-1].argmin())
