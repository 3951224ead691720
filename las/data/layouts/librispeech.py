"""LibriSpeech: ``<part>/<speaker>/<chapter>/*.trans.txt`` beside the audio."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from las.audio import AUDIO_SUFFIXES as ANY_AUDIO
from las.data import tables
from las.data.layouts.listing import (
    Item,
    audio_file,
    list_files,
    need_folder,
    other_file,
    relative_id,
)
from las.errors import LASError


def librispeech(root: Path, parts: Sequence[str] = ()) -> dict[str, list[Item]]:
    """Read LibriSpeech's layout: ``<part>/<speaker>/<chapter>/*.trans.txt`` beside the audio.

    Args:
        root: the folder that holds the parts, under any names.
        parts: names of the parts; all folders with transcripts if empty.

    Raises:
        LASError: a part is missing or has no transcripts.
    """
    need_folder(root)
    names = list(parts) or sorted(
        p.name for p in root.iterdir() if p.is_dir() and next(p.glob("*/*/*.trans.txt"), None)
    )
    if not names:
        raise LASError(f"{root}: no LibriSpeech layout (<part>/<speaker>/<chapter>/*.trans.txt)")
    found = {}
    for name in names:
        files, items = list_files(root / name)
        transcripts = [
            path
            for path in files
            if path.name.endswith(".trans.txt") and len(path.relative_to(root / name).parts) == 3
        ]
        if not transcripts:
            raise LASError(f"{root / name}: no <speaker>/<chapter>/*.trans.txt below it")
        bad: dict[Path, str] = {}  # folders
        for path in transcripts:
            try:
                items += [
                    Item(id, audio_file(path.parent, id), text, f"{name}-{path.parts[-3]}")
                    for id, text in _lines(path)
                ]
            except LASError as error:
                bad[path.parent] = str(error)
        items += _unnamed(root / name, files, items, bad)
        found[name] = items
    return found


def _lines(transcript: Path) -> Iterator[tuple[str, str]]:
    """``ID TEXT`` lines."""
    for line in tables.read(transcript).split("\n"):
        id, *text = line.split(maxsplit=1) or [""]
        if id:
            yield id, "".join(text)


def _unnamed(
    root: Path, files: Iterable[Path], items: Iterable[Item], bad: dict[Path, str]
) -> list[Item]:
    """Files of LibriSpeech that no transcript names; ``bad``: folders with an unreadable one."""
    named = {item.path for item in items}
    found: dict[Path, list[Item]] = defaultdict(list)
    rest = []
    for path in files:
        if path.suffix.lower() in ANY_AUDIO:
            if path not in named:
                flaw = ("empty text", f"no *.trans.txt in {path.parent} has a line for it")
                if path.parent in bad:
                    flaw = ("unreadable text", bad[path.parent])
                found[path.parent].append(Item(path.stem, path, "", "", flaw))
        elif not path.name.endswith(".trans.txt"):
            rest.append(other_file(root, path, "not audio by its name", "not used"))
    for parent, problem in bad.items():
        if not found[parent]:
            rest.append(
                Item(relative_id(root, parent), parent, "", "", ("unreadable text", problem))
            )
    return [*(item for group in found.values() for item in group), *rest]
