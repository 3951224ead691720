"""Transcriptions as files: the formats that openai/whisper writes, a module each.

A new format is a module with a function ``render``, and a row of :data:`FORMATS`.
"""

from collections.abc import Callable
from pathlib import Path

from las.storage.atomic import replacing
from las.transcription.types import Transcription
from las.transcription.writers import json, srt, tsv, txt, vtt

FORMATS: dict[str, Callable[[Transcription, bool], str]] = {
    "txt": txt.render,
    "srt": srt.render,
    "vtt": vtt.render,
    "tsv": tsv.render,
    "json": json.render,
}
"""What writes each format, by its name, which is the suffix of its files."""


def render(transcription: Transcription, kind: str, word_timestamps: bool = False) -> str:
    """A transcription in a format.

    Args:
        transcription: of a file, perhaps empty.
        kind: a key of :data:`FORMATS`.
        word_timestamps: whether JSON holds the words; other formats never do.
    """
    return FORMATS[kind](transcription, word_timestamps)


def write(
    transcription: Transcription, path: Path, kind: str, word_timestamps: bool = False
) -> None:
    """Write a format under a temporary name, then rename; see :func:`render`."""
    with replacing(path) as temporary:
        temporary.write_text(
            render(transcription, kind, word_timestamps), encoding="utf-8", newline="\n"
        )
