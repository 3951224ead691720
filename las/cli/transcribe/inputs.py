"""Arguments of the command -> audio files, each with the name of its results.

A file ``a/x.wav`` gives ``x``; files below a folder, or matched by a pattern, keep the path from
there: their subfolders are created in the output folder.
"""

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from las.audio import AUDIO_SUFFIXES
from las.errors import LASError, shown
from las.storage import walk
from las.storage.walk import Skipped

STDIN = "-"
_RESULTS = frozenset([".json", ".srt", ".tsv", ".txt", ".vtt"])  # expected beside audio
_UNKNOWN = "not audio by its name"


@dataclass(frozen=True)
class Source:
    """A file to transcribe."""

    path: Path
    name: Path  # of its results, without a suffix; relative

    @property
    def shown(self) -> str:
        """Its name in messages and results."""
        return "stdin" if self.path == Path(STDIN) else str(self.path)

    @property
    def column(self) -> str:
        """The name as a column of a table: quoted if it has a tab or a line break."""
        name = self.shown
        return name if name.splitlines() == [name] and "\t" not in name else ascii(name)


def is_many(argument: str) -> bool:
    """Whether an argument is a folder or a pattern, even if it gives a single file."""
    return _is_folder(Path(argument)) or (
        glob.has_magic(argument) and not os.path.lexists(argument)
    )


def find(
    arguments: Iterable[str], note: Callable[[str], None] | None = None
) -> Iterator[Source | LASError]:
    """Audio files in the order of the arguments, each once.

    Args:
        arguments: files, folders (searched with all below them, links to folders followed),
            patterns with ``*``, ``?``, ``[...]`` or ``**``, and ``-`` for standard input, whose
            path is then ``-``.
        note: called with a line about the other files of a folder or a pattern.

    Yields:
        files, whether they exist or not; an error for a folder or a pattern that gives none, and
        for a folder in it that cannot be read.
    """
    seen: set[str] = set()
    for argument in arguments:
        for source in _expanded(argument, note):
            if isinstance(source, Source):
                real = STDIN if argument == STDIN else os.path.realpath(source.path)
                if real in seen:
                    continue
                seen.add(real)
            yield source


def _expanded(argument: str, note: Callable[[str], None] | None) -> Iterator[Source | LASError]:
    path = Path(argument)
    if argument == STDIN:
        yield Source(path, Path("stdin"))
        return
    if not is_many(argument):
        yield Source(path, Path(path.stem or path.name))
        return
    folder = _is_folder(path)
    found, skipped = _below(path) if folder else _matching(argument)
    unreadable = [one for one in skipped if one.reason == walk.UNREADABLE]
    rest = [one for one in skipped if one not in unreadable]
    for one in unreadable:
        what = f"{shown(one.path)}: cannot be read ({one.detail})"
        yield LASError(f"{what}; change its permissions")
    yield from found
    if rest and note is not None:
        note(f"{shown(argument)}: skipped {walk.summary(rest)}")
    if not found and not unreadable:
        what = "no audio files in this folder; name files of other suffixes one by one"
        if not folder:
            cure = "write [[] for a [ in a name" if "[" in argument else "check it"
            what = f"no audio file matches this pattern; {cure}"
        yield LASError(f"{shown(argument)}: {what}")


def _below(folder: Path) -> tuple[list[Source], list[Skipped]]:
    paths, skipped = walk.walk(folder)
    found = [
        Source(path, path.relative_to(folder).with_suffix("")) for path in paths if _is_audio(path)
    ]
    return found, [*skipped, *_others(paths)]


def _matching(pattern: str) -> tuple[list[Source], list[Skipped]]:
    """Files that match; if the pattern has no suffix, only those with one of audio."""
    root = Path()
    parts = list(Path(pattern).parts)
    while parts and (not glob.has_magic(parts[0]) or os.path.lexists(root / parts[0])):
        root /= parts.pop(0)  # a folder may be called [a]
    escaped = str(Path(glob.escape(str(root)), *parts))
    chosen = not glob.has_magic(Path(pattern).suffix) and Path(pattern).suffix != ""
    paths = walk.matching(escaped)
    # Links give a file several names: the shortest path is taken.
    own: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: len(path.parts)):
        own.setdefault(os.path.realpath(path), path)
    found = [
        Source(path, path.relative_to(root).with_suffix(""))
        for path in sorted(own.values())
        if chosen or _is_audio(path)
    ]
    return found, [] if chosen else _others(own.values())


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def _others(paths: Iterable[Path]) -> list[Skipped]:
    """Files that are neither audio nor results of transcription, by their suffixes."""
    known = AUDIO_SUFFIXES | _RESULTS
    return [Skipped(path, _UNKNOWN) for path in paths if path.suffix.lower() not in known]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long for a folder
        return False


@contextmanager
def readable(sources: Sequence[Source]) -> Iterator[list[Path]]:
    """Paths to read files from: their own, and for standard input that of a temporary copy.

    Raises:
        LASError: standard input cannot be copied, see :func:`read_stdin`.
    """
    with ExitStack() as stack:
        yield [
            stack.enter_context(read_stdin(sys.stdin))
            if source.path == Path(STDIN)
            else source.path
            for source in sources
        ]


@contextmanager
def read_stdin(stream: TextIO | None) -> Iterator[Path]:
    """A copy of standard input, which disappears with this process.

    Raises:
        LASError: nothing is piped in, or it cannot be copied.
    """
    if stream is None or stream.isatty():
        raise LASError("stdin: nothing is piped in; write `las transcribe - < FILE`")
    from las.audio import reader  # slow to import

    with reader.copied(stream.buffer, Path("stdin")) as path:
        yield path
