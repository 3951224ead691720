"""Inputs -> blocks: what a worker transcribes at once, and what one part file holds.

The same inputs give the same blocks, so that a rerun can skip those that are done.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from las.errors import LASError, shown

if TYPE_CHECKING:
    from las.transcription.transcript import Reading  # needs torch

SHARD = "cuts.*.jsonl*"
"""Names of the manifests of lhotse's Shar format; the recordings are in a tar beside each."""

MANIFESTS = (".jsonl", ".jsonl.gz")
"""Suffixes of manifests."""


@dataclass(frozen=True)
class Item:
    """One recording or utterance, with what its row begins with."""

    path: str
    id: str | None  # of an utterance
    audio: "Path | Reading"


class Block(Protocol):
    """What is transcribed at once."""

    def items(self) -> Iterator[Item]:
        """What it holds, in order.

        Raises:
            LASError: the rest cannot be read.
        """

    def singles(self) -> "Sequence[Block]":
        """The same as blocks of one."""

    @property
    def path(self) -> str:
        """What it is read from: of several files the first."""

    @property
    def relative(self) -> bool:
        """Whether a worker must be in the folder of the command to read it."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes it another block if it differs."""


@dataclass(frozen=True)
class Files:
    """Audio files."""

    names: tuple[str, ...]

    def items(self) -> Iterator[Item]:
        """See :class:`Block`."""
        for name in self.names:
            yield Item(name, None, Path(name))

    def singles(self) -> "Sequence[Files]":
        """See :class:`Block`."""
        return [Files((name,)) for name in self.names]

    @property
    def path(self) -> str:
        """See :class:`Block`."""
        return self.names[0]

    @property
    def relative(self) -> bool:
        """See :class:`Block`."""
        return not all(map(os.path.isabs, self.names))

    @property
    def identity(self) -> tuple[str, ...]:
        """See :class:`Block`."""
        return ("files", *self.names)


@dataclass(frozen=True)
class Cuts:
    """Lines of a manifest."""

    path: str
    lines: tuple[str, ...]

    def items(self) -> Iterator[Item]:
        """See :class:`Block`."""
        from las.bulk import cuts

        return cuts.of_lines(self.lines, self.path)

    def singles(self) -> "Sequence[Cuts]":
        """See :class:`Block`."""
        return [Cuts(self.path, (line,)) for line in self.lines]

    @property
    def relative(self) -> bool:
        """See :class:`Block`."""
        return False  # manifests have absolute paths

    @property
    def identity(self) -> tuple[str, ...]:
        """See :class:`Block`."""
        return ("cuts", *self.lines)


@dataclass(frozen=True)
class Shard:
    """A shard of lhotse's Shar format, or one utterance of it."""

    manifest: str
    path: str  # of the recordings
    only: int | None = None  # the index of this utterance

    def items(self) -> Iterator[Item]:
        """See :class:`Block`."""
        from las.bulk import cuts

        found = cuts.of_shard(self.manifest, self.path)
        return found if self.only is None else itertools.islice(found, self.only, self.only + 1)

    def singles(self) -> "Sequence[Shard]":
        """See :class:`Block`."""
        from las.bulk import cuts

        count = len(cuts.lines(self.manifest)) if self.only is None else 1
        return [Shard(self.manifest, self.path, index) for index in range(count)]

    @property
    def relative(self) -> bool:
        """See :class:`Block`."""
        return not (os.path.isabs(self.manifest) and os.path.isabs(self.path))  # noqa: PTH117

    @property
    def identity(self) -> tuple[str, ...]:
        """See :class:`Block`."""
        sizes = [str(os.stat(name).st_size) for name in (self.manifest, self.path)]  # noqa: PTH116
        return ("shard", self.manifest, self.path, *sizes)


def of_files(paths: Iterable[Path], size: int) -> list[Files]:
    """Blocks of audio files, in the order of their paths."""
    return [Files(names) for names in _grouped(sorted(map(str, paths), key=os.fsencode), size)]


def of_manifest(path: Path, size: int) -> "Sequence[Block]":
    """Blocks of a manifest, in its order; a shard, which has its audio beside it, is one.

    Raises:
        LASError: it cannot be read, or is no manifest.
    """
    from las.bulk import cuts

    tar = _recordings(path)
    if tar is not None:
        return [Shard(str(path), str(tar))]
    found = cuts.lines(path)
    next(cuts.of_lines(found[:1], str(path)))  # of a file of other lines nothing is transcribed
    return [Cuts(str(path), lines) for lines in _grouped(found, size)]


def shards(folder: Path) -> list[Path]:
    """The manifests of a folder of shards; none of another folder.

    Raises:
        LASError: their preparation was interrupted.
    """
    found = [path for path in sorted(folder.glob(SHARD)) if _recordings(path) is not None]
    if found:
        from las.data.shards.preparation import unfinished

        if unfinished(folder):
            raise LASError(
                f"{shown(folder)}: not all of the shards; run `las prepare ... --shards` again to "
                "the end"
            )
    return found


def named_below(folder: Path) -> Path | None:
    """A manifest or a folder of shards in a folder or a subfolder of it; None without one."""
    for pattern in ("*", "*/*"):
        for path in sorted(folder.glob(pattern)):
            if path.name.endswith(MANIFESTS) and path.is_file():
                return path.parent if _recordings(path) is not None else path
    return None


def digest(blocks: Iterable[Block]) -> str:
    """A number that other blocks do not have."""
    found = hashlib.sha256()
    for block in blocks:
        for text in block.identity:
            found.update(os.fsencode(text) + b"\0")
        found.update(b"\0")
    return found.hexdigest()


def _recordings(manifest: Path) -> Path | None:
    """The recordings of a shard; None if this is no manifest of one."""
    first, number, *_ = (*manifest.name.split("."), "", "")
    tar = manifest.with_name(f"recording.{number}.tar")
    return tar if first == "cuts" and number and tar.is_file() else None


def _grouped(texts: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(texts), size):
        yield tuple(texts[start : start + size])
