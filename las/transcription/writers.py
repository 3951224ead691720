"""Transcriptions as text, subtitles, tables and JSON: the files that openai/whisper writes.

Subtitles are broken into lines, of which whisper by default makes one.
"""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

from las.storage.atomic import replacing
from las.transcription.segments import LINE
from las.transcription.types import Transcription


def render(transcription: Transcription, kind: str, word_timestamps: bool = False) -> str:
    """A transcription in a format.

    Args:
        transcription: of a file, perhaps empty.
        kind: a key of :data:`FORMATS`.
        word_timestamps: whether JSON holds the words; other formats never do.
    """
    if kind == "json":
        return _json(transcription, word_timestamps)
    return _WRITERS[kind](transcription)


def write(
    transcription: Transcription, path: Path, kind: str, word_timestamps: bool = False
) -> None:
    """Write a format under a temporary name, then rename; see :func:`render`."""
    with replacing(path) as temporary:
        temporary.write_text(
            render(transcription, kind, word_timestamps), encoding="utf-8", newline="\n"
        )


def timestamp(seconds: float, hours: bool = True, mark: str = ".") -> str:
    """``HH:MM:SS.mmm``, as subtitles have it.

    Args:
        seconds: 0 or more.
        hours: whether to write hours where there are none.
        mark: decimal separator.
    """
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    whole, minutes = divmod(minutes, 60)
    front = f"{whole:02d}:" if hours or whole else ""
    return f"{front}{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def _txt(transcription: Transcription) -> str:
    return "".join(f"{segment.text}\n" for segment in transcription.segments)


def _srt(transcription: Transcription) -> str:
    return "".join(
        f"{number}\n{timestamp(s.start, mark=',')} --> {timestamp(s.end, mark=',')}\n"
        f"{_lines(s.text)}\n\n"
        for number, s in enumerate(transcription.segments, start=1)
    )


def _vtt(transcription: Transcription) -> str:
    cues = (
        f"{timestamp(s.start, hours=False)} --> {timestamp(s.end, hours=False)}\n{_lines(s.text)}\n"
        for s in transcription.segments
    )
    return "\n".join(["WEBVTT\n", *cues])


def _tsv(transcription: Transcription) -> str:
    rows = (
        f"{round(1000 * s.start)}\t{round(1000 * s.end)}\t{s.text.replace(chr(9), ' ')}\n"
        for s in transcription.segments
    )
    return "".join(["start\tend\ttext\n", *rows])


def _json(transcription: Transcription, word_timestamps: bool) -> str:
    whole = transcription.to_dict(word_timestamps)
    return json.dumps(whole, ensure_ascii=False, allow_nan=False) + "\n"


def _lines(text: str) -> str:
    """A segment as lines of subtitles, without arrows, which stand between two times."""
    lines = textwrap.wrap(text, LINE, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("-->", "->")


_WRITERS: dict[str, Callable[[Transcription], str]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
}
FORMATS = (*_WRITERS, "json")
"""Names of the formats, which are the suffixes of their files."""
