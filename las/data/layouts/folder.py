"""A user's own data: a table, or a folder of audio with texts beside it."""

import os
from collections.abc import Iterator
from pathlib import Path

from las.audio import AUDIO_SUFFIXES as ANY_AUDIO
from las.data import tables
from las.data.layouts.listing import AUDIO_SUFFIXES, Item, list_files, need_folder, other_file
from las.errors import LASError


def folder(source: Path) -> dict[str, list[Item]]:
    """Read a user's own data.

    Args:
        source: a CSV, TSV or JSONL file with ``audio`` (relative to the file) and ``text``, and
            optionally ``id`` and ``speaker``; or a folder of audio files with a ``.txt`` of the
            same name beside each, where subfolders are speakers.

    Raises:
        LASError: there is no audio, or a row is malformed.
    """
    if source.suffix.lower() in tables.SUFFIXES:
        return {source.stem: list(_table(source))}
    need_folder(source)
    files, items = list_files(source)
    texts = {
        path.with_suffix(""): path  # `.txt` comes after `.TXT`
        for path in files
        if path.suffix.lower() == ".txt"
    }
    recordings = [path for path in files if path.suffix.lower() in ANY_AUDIO]
    if not recordings:
        raise LASError(f"{source}: no audio ({' '.join(AUDIO_SUFFIXES)}) below it")
    for path in recordings:
        relative = path.relative_to(source)
        speaker = relative.parts[0] if len(relative.parts) > 1 else relative.stem
        text, flaw = _text(path, texts.get(path.with_suffix("")))
        items.append(Item("-".join(relative.with_suffix("").parts), path, text, speaker, flaw))
    of_audio = {texts.get(path.with_suffix("")) for path in recordings}
    for path in files:
        if path.suffix.lower() not in ANY_AUDIO and path not in of_audio:
            is_text = path.suffix.lower() == ".txt"
            reason = "text without audio" if is_text else "not audio by its name"
            items.append(other_file(source, path, reason, "not used"))
    return {source.resolve().name: items}


def _text(audio: Path, transcript: Path | None) -> tuple[str, tuple[str, str] | None]:
    """The text of a recording, and the problem if there is none."""
    if transcript is None:
        return "", ("empty text", f"there is no {audio.stem}.txt beside it")
    try:
        return tables.read(transcript), None
    except LASError as error:
        return "", ("unreadable text", str(error))


def _table(path: Path) -> Iterator[Item]:
    """Rows of a CSV, TSV or JSONL file."""
    for _, row in tables.rows(path, ("audio", "text")):
        relative = Path(row["audio"])
        source = path.parent / relative
        id = row.get("id") or "-".join((*relative.parent.parts, relative.stem)).lstrip("/-")
        above = Path(os.path.abspath(source)).parent  # noqa: PTH100 (does not resolve links)
        yield Item(id, source, row["text"], row.get("speaker") or above.name or path.stem)
