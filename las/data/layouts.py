"""Readers of corpus layouts; `las.data.corpora` checks the utterances that they list.

Every file of a corpus is accounted for: a file that a layout does not use is an item with the
reason.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from las.audio import AUDIO_SUFFIXES as ANY_AUDIO
from las.data import tables
from las.errors import LASError
from las.storage.walk import UNREADABLE, walk

AUDIO_SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".mp3", ".sph", ".aiff", ".aif")
_COMMONVOICE = ("train", "dev", "test")


@dataclass(frozen=True)
class Item:
    """One utterance as the corpus lists it."""

    id: str
    path: Path
    text: str
    speaker: str
    flaw: tuple[str, str] | None = None  # known problem: a kind such as "empty text", and details
    beside: bool = False  # not an utterance but another file, which is skipped


def librispeech(root: Path, parts: Sequence[str] = ()) -> dict[str, list[Item]]:
    """Read LibriSpeech's layout: ``<part>/<speaker>/<chapter>/*.trans.txt`` beside the audio.

    Args:
        root: the folder that holds the parts, under any names.
        parts: names of the parts; all folders with transcripts if empty.

    Raises:
        LASError: a part is missing or has no transcripts.
    """
    _need_folder(root)
    names = list(parts) or sorted(
        p.name for p in root.iterdir() if p.is_dir() and next(p.glob("*/*/*.trans.txt"), None)
    )
    if not names:
        raise LASError(f"{root}: no LibriSpeech layout (<part>/<speaker>/<chapter>/*.trans.txt)")
    found = {}
    for name in names:
        files, items = _searched(root / name)
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
                    Item(id, _sibling(path.parent, id), text, f"{name}-{path.parts[-3]}")
                    for id, text in _lines(path)
                ]
            except LASError as error:
                bad[path.parent] = str(error)
        items += _unnamed(root / name, files, items, bad)
        found[name] = items
    return found


def an4(root: Path) -> dict[str, list[Item]]:
    """Read the layout of AN4 by CMU: ``etc/an4_{train,test}.{fileids,transcription}`` and ``wav/``.

    Raises:
        LASError: one of the lists is missing or cannot be read.
    """
    _need_folder(root)
    pattern = re.compile(r"^(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\((\S+)\)\s*$")
    found = {}
    for part in ("train", "test"):
        texts = {}
        transcription = root / "etc" / f"an4_{part}.transcription"
        for line in tables.read(transcription).split("\n"):
            match = pattern.match(line)
            if match:
                texts[match[2]] = match[1]
        items = []
        for fileid in tables.read(root / "etc" / f"an4_{part}.fileids").split():
            path = root / "wav" / fileid
            flaw = None
            if path.name not in texts:
                flaw = ("empty text", f"no line of {transcription} ends in ({path.name})")
            audio, text = _sibling(path.parent, path.name), texts.get(path.name, "")
            items.append(Item(path.name, audio, text, path.parent.name, flaw))
        found[part] = items
    return found


def commonvoice(source: Path, parts: Sequence[str] = ()) -> dict[str, list[Item]]:
    """Read the layout of Common Voice by Mozilla: ``<part>.tsv`` and ``clips/``.

    Args:
        source: the folder of a language.
        parts: names of TSV files without their suffix; if empty, those of train, dev and test that
            exist.

    Raises:
        LASError: a part is missing, or lacks the columns of Common Voice.
    """
    _need_folder(source)
    names = list(parts) or [part for part in _COMMONVOICE if (source / f"{part}.tsv").is_file()]
    if not names:
        raise LASError(f"{source}: no Common Voice layout (train.tsv, dev.tsv, test.tsv, clips/)")
    return {name: list(_clips(source / f"{name}.tsv")) for name in names}


def _clips(path: Path) -> Iterator[Item]:
    lines = tables.tsv(path)
    _, header = next(lines, (0, []))
    if isinstance(header, str) or not {"client_id", "path", "sentence"} <= set(header):
        raise LASError(
            f"{path}: the header lacks `client_id`, `path` or `sentence`: it is {header}"
        )
    for number, fields in lines:
        if len(fields) != len(header) or isinstance(fields, str):
            flaw = f"is {fields}"
            if not isinstance(fields, str):
                flaw = f"has {len(fields)} fields, the header {len(header)}"
            id = f"{path.name}:{number}"
            yield Item(id, path, "", "", ("malformed row", f"line {number} {flaw}"))
            continue
        row = dict(zip(header, fields, strict=True))
        clip = path.parent / "clips" / row["path"]
        if not clip.suffix:  # as in the first releases
            clip = _sibling(clip.parent, clip.name)
        yield Item(Path(row["path"]).stem, clip, row["sentence"], row["client_id"])


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
    _need_folder(source)
    files, items = _searched(source)
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
            items.append(_beside(source, path, reason, "not used"))
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


def _lines(transcript: Path) -> Iterator[tuple[str, str]]:
    """``ID TEXT`` lines."""
    for line in tables.read(transcript).split("\n"):
        id, *text = line.split(maxsplit=1) or [""]
        if id:
            yield id, "".join(text)


def _searched(root: Path) -> tuple[list[Path], list[Item]]:
    """The files below a folder, and items for what is skipped."""
    files, skipped = walk(root)
    items = []
    for one in skipped:
        flaw, beside = (one.reason, one.detail), one.reason != UNREADABLE
        items.append(Item(_id(root, one.path), one.path, "", "", flaw, beside))
    return files, items


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
            rest.append(_beside(root, path, "not audio by its name", "not used"))
    for parent, problem in bad.items():
        if not found[parent]:
            rest.append(Item(_id(root, parent), parent, "", "", ("unreadable text", problem)))
    return [*(item for group in found.values() for item in group), *rest]


def _beside(root: Path, path: Path, reason: str, detail: str) -> Item:
    return Item(_id(root, path), path, "", "", (reason, detail), beside=True)


def _id(root: Path, path: Path) -> str:
    return str(path.relative_to(root))


def _sibling(parent: Path, stem: str) -> Path:
    """The audio file of this name with any suffix; ``.flac`` if there is none."""
    paths = (parent / (stem + suffix) for suffix in AUDIO_SUFFIXES)
    return next((path for path in paths if exists(path)), parent / f"{stem}.flac")


def exists(path: Path) -> bool:
    """Whether a path exists; True if its folder cannot be read."""
    try:
        return path.exists()
    except PermissionError:
        return True
    except OSError:  # for example a name that is too long
        return False


def _need_folder(path: Path) -> None:
    if not path.is_dir():
        raise LASError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
