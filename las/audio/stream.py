"""A stream of samples at its own rate, and the errors that say what to do about a file.

`las.audio.sndfile` and `las.audio.ffmpeg` open files, `las.audio.containers` looks whether they are
whole. A damaged file is an error and never just its first part, as far as its format lets the
damage be seen: raw frames of AAC, AC-3 or MP2, an MP3 without a Xing header, and a WAV written to a
pipe do not say how long they should be.

Knows nothing of resampling: `las.audio.reader` does that, and is what other modules use.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from las.errors import LASError, shown

MIN_SECONDS = 0.05
"""Shorter audio is refused: it holds a few frames at most, and no word."""
UNKNOWN_LENGTH = 1 << 62
"""Frames of a stream that does not tell; libsndfile's SF_COUNT_MAX is above this."""
BLOCK_SAMPLES = 1 << 18
"""Read at once, over all channels."""

_MAX_LEVEL = 1e10  # full scale is 1 (2**31 in integers kept as floats); above, powers overflow


class AudioError(LASError):
    """A file that gives no usable audio; the message is one line with the file and the cure.

    Attributes:
        path: of the file.
        what: is wrong, without the file and the cure.
    """

    path: Path | None = None
    what = ""


class NotSupportedError(Exception):
    """libsndfile does not open the file: another program may.

    Args:
        what: libsndfile says.
        damaged: whether it knows the format, and takes the file for damaged.
    """

    def __init__(self, what: str, damaged: bool = False) -> None:
        super().__init__(what)
        self.damaged = damaged


@dataclass
class Stream:
    """An open source: `blocks` yields float32 [n, channels], `frames` in all if that is known."""

    rate: int
    channels: int
    frames: int
    blocks: Iterator[np.ndarray]
    slack: int = 0
    notes: list[str] = field(default_factory=list)  # what a user should know of what was read


def checked(path: Path, stream: Stream) -> Iterator[np.ndarray]:
    """The blocks of a stream, float32 [n, channels].

    Raises:
        AudioError: at the end, if samples are missing, not numbers, or too few. No block follows
            one that holds a sample that is not a number.
    """
    length = bad = 0
    for block in stream.blocks:
        with np.errstate(invalid="ignore", over="ignore"):
            bad += block.size - int(np.count_nonzero(np.abs(block) <= _MAX_LEVEL))
        length += len(block)
        if not bad:
            yield block
    if stream.frames < UNKNOWN_LENGTH and length < stream.frames - stream.slack:
        raise cut_short(path, f"{length} of {stream.frames} samples are there")
    if length == 0:
        raise error(path, "holds no samples", "fetch or record it again")
    if bad:
        what = f"holds {bad} samples that are NaN, infinite or beyond {_MAX_LEVEL:g}"
        raise error(path, what, "write it again from its source")
    if length < MIN_SECONDS * stream.rate:
        what = f"lasts only {1000 * length / stream.rate:.3g} ms"
        raise error(path, what, f"give at least {1000 * MIN_SECONDS:g} ms of audio")


def error(path: Path, what: str, cure: str) -> AudioError:
    """An error of one line."""
    what = " ".join(what.split())
    found = AudioError(f"{shown(path)}: {what}; {cure}")
    found.path, found.what = path, what
    return found


def cut_short(path: Path, what: str) -> AudioError:
    """The error of a file that announces more than there is."""
    cure = "fetch it again, or convert what is left of it to wav"
    return error(path, f"the file is cut short ({what})", cure)
