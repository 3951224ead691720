"""Files below a folder, following links; everything that is skipped is reported."""

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

HIDDEN = "hidden"
AGAIN = "link to a folder that is searched anyway"
UNREADABLE = "unreadable folder"
_SHOWN = 3  # names in a summary


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was skipped."""

    path: Path
    reason: str  # counted by this, such as "hidden"
    detail: str = ""


def walk(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """All files below a folder; each folder is searched once.

    Links to folders are followed after all real folders, so that files are found under their own
    names where possible, and a link to a parent folder makes no endless loop.

    Args:
        folder: a folder, or a link to one.

    Returns:
        the files, sorted by path; and what was skipped: names that begin with a dot, links to
        folders that are searched anyway, and folders that cannot be read.
    """
    files: list[Path] = []
    skipped: list[Skipped] = []
    seen: set[tuple[int, int]] = set()
    due: list[Path] = [folder]
    links: list[Path] = []
    while due or links:
        parent = due.pop() if due else links.pop(0)
        try:
            status = parent.stat()
            if (status.st_dev, status.st_ino) in seen:
                skipped.append(Skipped(parent, AGAIN, os.path.realpath(parent)))
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(parent) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(Skipped(parent, UNREADABLE, error.strerror or str(error)))
            continue
        for entry in entries:
            path = parent / entry.name
            if entry.name.startswith("."):
                skipped.append(Skipped(path, HIDDEN, "its name begins with a dot"))
            elif not _is_folder(entry):
                files.append(path)
            else:
                (links if entry.is_symlink() else due).append(path)
    return sorted(files), sorted(skipped, key=lambda one: one.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that cannot be entered: reading it will report that
        return True


def matching(pattern: str) -> list[Path]:
    """Files that match a pattern, sorted, as :func:`glob.glob` finds them, following links.

    :func:`glob.glob` with ``**`` follows a link to a parent folder forty times, and with two such
    links forty times each way; this function does not.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        return sorted(filter(_is_file, _glob(pattern)))
    first = parts.index("**")
    front, rest = Path(*parts[:first]), parts[first:]
    roots = _glob(str(front)) if glob.has_magic(str(front)) else [front]
    return sorted(
        {
            path
            for root in roots
            for path in _below(root, (), any(part.startswith(".") for part in rest))
            if _matches(path.relative_to(root).parts, rest) and _is_file(path)
        }
    )


def _glob(pattern: str) -> list[Path]:
    return [Path(name) for name in glob.glob(pattern)]  # noqa: PTH207 (absolute ones too)


def _below(folder: Path, above: tuple[os.stat_result, ...], hidden: bool) -> Iterator[Path]:
    """Paths below a folder, without links to the folders ``above``."""
    try:
        here = folder.stat()
        if any(os.path.samestat(here, other) for other in above):
            return
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:  # not a folder, or not readable
        return
    for entry in entries:
        if hidden or not entry.name.startswith("."):
            yield folder / entry.name
            if _is_folder(entry):
                yield from _below(folder / entry.name, (*above, here), hidden)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match; ``**`` is any number of folders that are not hidden."""
    if not pattern:
        return not parts
    shown = bool(parts) and not parts[0].startswith(".")
    if pattern[0] == "**":  # at the end: the files in them
        rest = pattern[1:] or ["*"]
        return _matches(parts, rest) or (shown and _matches(parts[1:], pattern))
    return (
        bool(parts)
        and (shown or pattern[0].startswith("."))
        and fnmatchcase(parts[0], pattern[0])
        and _matches(parts[1:], pattern[1:])
    )


def summary(skipped: Iterable[Skipped]) -> str:
    """Counts by reason, with a few names: ``2 hidden (._a.wav, .b.wav)``."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for one in skipped:
        reasons[one.reason].append(one.path.name)
    return ", ".join(
        f"{len(names)} {reason} ({', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)})"
        for reason, names in sorted(reasons.items())
    )
