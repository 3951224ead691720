"""A stream of samples at the rate of the file, and errors about audio files.

`las.audio.sndfile` and `las.audio.ffmpeg` open files; `las.audio.containers` checks that they are
complete. A damaged file is an error, and its first part is never returned instead, as far as the
format allows this: raw frames of AAC, AC-3 or MP2, an MP3 without a Xing header, and a WAV written
to a pipe have no length. Other modules use `las.audio.reader`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from las.errors import LASError, shown

MIN_SECONDS = 0.05
"""Minimum duration; shorter audio has a few frames and no word."""
UNKNOWN_LENGTH = 1 << 62
"""Frames of a stream of unknown length; SF_COUNT_MAX of libsndfile is larger."""
BLOCK_SAMPLES = 1 << 18
"""Samples of a block, over all channels."""

_MAX_LEVEL = 1e10  # full scale is 1, or 2**31 for integers stored as floats; higher levels overflow


class AudioError(LASError):
    """A file without usable audio; the message is one line with the file and the cure.

    Attributes:
        path: of the file.
        what: the problem, without the file and the cure.
    """

    path: Path | None = None
    what = ""


class NotSupportedError(Exception):
    """libsndfile cannot open the file; another program may.

    Args:
        what: message of libsndfile.
        damaged: whether it knows the format, and reports damage.
    """

    def __init__(self, what: str, damaged: bool = False) -> None:
        super().__init__(what)
        self.damaged = damaged


@dataclass
class Stream:
    """An open file: `blocks` yields float32 [n, channels], in total `frames` if known."""

    rate: int
    channels: int
    frames: int
    blocks: Iterator[np.ndarray]
    slack: int = 0
    notes: list[str] = field(default_factory=list)  # for the user, about the file


def checked(path: Path, stream: Stream) -> Iterator[np.ndarray]:
    """The blocks of a stream, float32 [n, channels].

    Raises:
        AudioError: at the end, if samples are missing, not numbers, or too few. No block follows
            one with a sample that is not a number.
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
        raise error(path, "has no samples", "fetch or record it again")
    if bad:
        what = f"has {bad} samples that are NaN, infinite or beyond {_MAX_LEVEL:g}"
        raise error(path, what, "write it again from its source")
    if length < MIN_SECONDS * stream.rate:
        what = f"lasts only {1000 * length / stream.rate:.3g} ms"
        raise error(path, what, f"give at least {1000 * MIN_SECONDS:g} ms of audio")


def error(path: Path, what: str, cure: str) -> AudioError:
    """An error with a one-line message."""
    what = " ".join(what.split())
    found = AudioError(f"{shown(path)}: {what}; {cure}")
    found.path, found.what = path, what
    return found


def cut_short(path: Path, what: str) -> AudioError:
    """The error of a truncated file."""
    cure = "fetch it again, or convert what is left of it to wav"
    return error(path, f"the file is cut short ({what})", cure)
