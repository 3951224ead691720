"""What the user names -> audio files, each with the name that its results get.

A file ``a/x.wav`` gives ``x``; files below a folder, or matched by a pattern, keep the path from
there: their folders are made again below the output folder.
"""

import glob
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from las.errors import LASError

STDIN = "-"
# Searched for in folders: what libsndfile reads, and what ffmpeg reads if it is installed.
_SUFFIXES = """
.aac .ac3 .aif .aifc .aiff .amr .ape .au .caf .flac .flv .m4a .m4b .mka .mkv .mov .mp2 .mp3 .mp4
.oga .ogg .opus .rf64 .snd .sph .tta .voc .w64 .wav .wave .webm .wma .wv
"""
AUDIO_SUFFIXES = frozenset(_SUFFIXES.split())


@dataclass(frozen=True)
class Source:
    """A file to transcribe."""

    path: Path
    name: Path  # of its results, without a suffix; relative

    @property
    def shown(self) -> str:
        """What messages and results call it."""
        return "stdin" if self.path == Path(STDIN) else str(self.path)


def is_many(argument: str) -> bool:
    """Whether an argument is a folder or a pattern, whatever number of files it gives."""
    path = Path(argument)
    return path.is_dir() or (glob.has_magic(argument) and not path.exists())


def find(arguments: Iterable[str]) -> Iterator[Source | LASError]:
    """Audio files in the order in which they are named, each once.

    Args:
        arguments: files, folders (searched with all below them), patterns with ``*``, ``?``,
            ``[...]`` or ``**``, and ``-`` for standard input, whose path is then ``-``.

    Yields:
        files, whether they exist or not; an error for a folder or a pattern that gives none.
    """
    seen: set[str] = set()
    for argument in arguments:
        for source in _expanded(argument):
            if isinstance(source, Source):
                real = STDIN if argument == STDIN else os.path.realpath(source.path)
                if real in seen:
                    continue
                seen.add(real)
            yield source


def _expanded(argument: str) -> Iterator[Source | LASError]:
    path = Path(argument)
    if argument == STDIN:
        yield Source(path, Path("stdin"))
    elif path.is_dir():
        try:
            found = _below(path)
        except OSError as error:
            what = f"{error.filename}: cannot be searched ({error.strerror})"
            yield LASError(f"{what}; make it readable for this user")
            return
        yield from found
        if not found:
            yield LASError(f"{argument}: no audio below this folder; name the files one by one")
    elif is_many(argument):
        found = _matching(argument)
        yield from found
        if not found:
            yield LASError(f"{argument}: no audio file matches this pattern; check it")
    else:
        yield Source(path, Path(path.stem or path.name))


def _below(folder: Path) -> list[Source]:
    def fail(error: OSError) -> None:
        raise error

    found = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if _is_audio(path):
                found.append(Source(path, path.relative_to(folder).with_suffix("")))
    return sorted(found, key=lambda source: source.path)


def _matching(pattern: str) -> list[Source]:
    """Files that match; without a suffix in the pattern, those whose own says audio."""
    root = Path(pattern)
    while glob.has_magic(str(root)):
        root = root.parent
    chosen = not glob.has_magic(Path(pattern).suffix) and Path(pattern).suffix != ""
    paths = sorted(Path(found) for found in glob.glob(pattern, recursive=True))  # noqa: PTH207 (absolute ones too)
    return [
        Source(path, path.relative_to(root).with_suffix(""))
        for path in paths
        if path.is_file() and (chosen or _is_audio(path))
    ]


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def check_names(sources: Sequence[Source]) -> None:
    """Refuse files whose results would get the same name.

    Raises:
        LASError: two do.
    """
    taken: dict[str, Path] = {}
    for source in sources:
        key = str(source.name).casefold()  # some file systems do not tell case
        if key in taken:
            raise LASError(
                f"{source.path} and {taken[key]} would both be written as {source.name}.*: name a "
                "folder that holds both, whose layout is kept, or write to two folders"
            )
        taken[key] = source.path


def read_stdin(stream: TextIO | None, folder: Path) -> Path:
    """Copy standard input to a file.

    Raises:
        LASError: nothing is piped in.
    """
    if stream is None or stream.isatty():
        raise LASError("stdin: nothing is piped in; write `las transcribe - < FILE`")
    path = folder / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(stream.buffer, file)
    return path
