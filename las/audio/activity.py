"""Sound activity of a recording: pauses and sound to within 5 ms.

Finer and more sensitive than the levels by which `las.transcription.chunking` cuts recordings.
Those must not cut words; this must not let words begin before their sound.
"""

import numpy as np

from las.audio.levels import runs

HOP_SECONDS = 0.005
_FRAME_SECONDS = 0.015  # a period of a low voice
_RANGE_DB = 35.0  # sound is at most this far below the highest level
_FLOOR_PERCENTILE = 3  # of the levels: the noise floor, even where pauses are few
_FLOOR_DB = 4.0  # sound is this far above the noise floor, whose levels vary by half of that
_LOUD_DB = 12.0  # levels this close to the highest are sound, whatever the noise floor
_CLICK = 3  # hops; shorter sound is not speech
_QUIETEST = 1e-7  # minimum amplitude, so that digital silence has a level


def sound_activity(samples: np.ndarray, rate: int) -> np.ndarray:
    """Sound activity of samples [S] every 5 ms: booleans [N]."""
    hop, frame = round(HOP_SECONDS * rate), round(_FRAME_SECONDS * rate)
    count = -(-len(samples) // hop)
    if not count:
        return np.zeros(0, bool)
    # A frame is centred on its hop.
    before = (frame - hop) // 2
    energy = np.zeros(1 + (count - 1) * hop + frame)
    around = samples - samples.mean(dtype=np.float64)  # a DC offset would hide all pauses
    energy[1 + before : 1 + before + len(samples)] = np.square(around)
    summed = np.cumsum(energy)
    starts = np.arange(count) * hop
    mean = (summed[starts + frame] - summed[starts]) / frame
    level = 10.0 * np.log10(np.maximum(mean, _QUIETEST**2))
    loudest = level.max()
    floor = np.percentile(level, _FLOOR_PERCENTILE)
    limit = min(max(loudest - _RANGE_DB, floor + _FLOOR_DB), loudest - _LOUD_DB)
    found = level > limit
    for start, end in runs(found):
        if end - start <= _CLICK:
            found[start:end] = False
    return found
