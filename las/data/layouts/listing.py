"""The utterances that a corpus lists, and the files below its folder.

Every file of a corpus is accounted for: a file that a layout does not use is an item with the
reason.
"""

from dataclasses import dataclass
from pathlib import Path

from las.errors import LASError
from las.storage.walk import UNREADABLE, walk

AUDIO_SUFFIXES = (".flac", ".wav", ".opus", ".ogg", ".mp3", ".sph", ".aiff", ".aif")


@dataclass(frozen=True)
class Item:
    """One utterance as the corpus lists it."""

    id: str
    path: Path
    text: str
    speaker: str
    flaw: tuple[str, str] | None = None  # known problem: a kind such as "empty text", and details
    beside: bool = False  # not an utterance but another file, which is skipped


def list_files(root: Path) -> tuple[list[Path], list[Item]]:
    """The files below a folder, and items for what is skipped."""
    files, skipped = walk(root)
    items = []
    for one in skipped:
        flaw, beside = (one.reason, one.detail), one.reason != UNREADABLE
        items.append(Item(relative_id(root, one.path), one.path, "", "", flaw, beside))
    return files, items


def other_file(root: Path, path: Path, reason: str, detail: str) -> Item:
    """A file among the utterances that is none, with the reason."""
    return Item(relative_id(root, path), path, "", "", (reason, detail), beside=True)


def relative_id(root: Path, path: Path) -> str:
    """The path from the corpus on."""
    return str(path.relative_to(root))


def audio_file(parent: Path, stem: str) -> Path:
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


def need_folder(path: Path) -> None:
    """Refuse what is not a folder.

    Raises:
        LASError: it is missing, or a file.
    """
    if not path.is_dir():
        found = "not a folder; name that of the corpus"
        raise LASError(f"{path}: {found if path.exists() else 'no such folder; check the path'}")
