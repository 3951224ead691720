"""A file that is being transcribed: what is read of it, and what of that is decoded."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from las.errors import LASError
from las.transcription.chunking import Chunk, ChunkingConfig, split
from las.transcription.stitching import DecodedChunk
from las.transcription.transcript import ChunkTranscript

Ready: TypeAlias = Callable[[Path, ChunkTranscript, int], None]
"""Called with the path of a file, a chunk of it that is final, and the samples read so far."""


@dataclass
class Recording:
    """A file between its first chunk and its transcript, see `las.transcription.transcriber`."""

    path: Path
    warnings: list[str]
    upcoming: Iterator[Chunk] = field(default_factory=lambda: iter(()))
    samples: int = 0  # read so far
    peak: float = 0.0  # of them
    done: int = 0  # samples up to the last decoded chunk
    pending: int = 0  # chunks that are not decoded yet
    read: bool = False  # to its end
    failure: str | None = None
    chunks: list[ChunkTranscript] = field(default_factory=list)
    last: DecodedChunk | None = None  # is still to be trimmed at the overlap with the next
    disagreement: np.ndarray = field(default_factory=lambda: np.zeros(2))  # of attention and CTC
    waiting: Callable[[], None] = lambda: None  # called when a stream has to be waited for
    ready: Ready | None = None  # told of chunks that are final

    @classmethod
    def of(
        cls,
        path: Path,
        blocks: Iterable[np.ndarray],
        warnings: list[str],
        rate: int,
        chunking: ChunkingConfig,
    ) -> "Recording":
        """A recording of which nothing is read yet.

        Args:
            path: its name.
            blocks: its samples at ``rate``.
            warnings: list that notes about it are added to.
            rate: in Hz.
            chunking: how it is cut.
        """
        recording = cls(path, warnings)
        recording.upcoming = split(recording._measured(blocks), rate, chunking)
        return recording

    def next_chunk(self) -> Chunk | None:
        """Read the next chunk, which is pending from now on; None at the end or after a failure."""
        if self.read:
            return None
        try:
            chunk = next(self.upcoming, None)
        except LASError as error:
            self.failure, chunk = str(error), None
        if chunk is None:
            self.read = True
            return None
        self.pending += 1
        return chunk

    def finish(self, chunk: ChunkTranscript) -> None:
        """Add a chunk that is final."""
        self.chunks.append(chunk)
        if self.ready is not None:
            self.ready(self.path, chunk, self.samples)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to read or to decode."""
        return self.read and (self.failure is not None or not self.pending)

    def close(self) -> None:
        """Read no more of it; its file is closed."""
        self.read, self.upcoming = True, iter(())

    def _measured(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self.samples += len(block)
            self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
            yield block
