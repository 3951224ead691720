"""What a Transcriber gives for a file: its chunks with their hypotheses, or why there is none."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from las.decoding.hypothesis import Hypothesis
from las.transcription.quality import Quality
from las.transcription.types import Word

Timer: TypeAlias = Callable[[Hypothesis, float, float], list[Word]]
"""The words of a hypothesis, from the seconds of a column of its alignment, and of its start."""


@dataclass(frozen=True)
class Reading:
    """Audio that is no file of its own, such as an utterance of a manifest; read in its turn."""

    path: Path  # its name in results and messages
    samples: Callable[[int], np.ndarray]  # Hz -> float32 [S]; a LASError is the file's failure

    def blocks(self, rate: int) -> Iterator[np.ndarray]:
        """The samples at a rate in Hz, as one block."""
        yield self.samples(rate)


@dataclass(frozen=True)
class ChunkTranscript:
    """One chunk after the search; positions are in samples of the file at the model's rate.

    Where the chunk overlaps with a neighbour, ``hypotheses`` is one, trimmed to what belongs to
    this chunk: its ids, log-probabilities, alignment and text are those of the words kept, and
    the end of sentence; its score is still that of the whole chunk.
    """

    start: int
    end: int
    hypotheses: list[Hypothesis]  # best first
    frame: float  # seconds of one column of their alignments
    centres: np.ndarray  # [U] attention centre of each id, in seconds from the file's start
    quality: Quality  # of the whole chunk
    words: list[Word] | None  # if the Transcriber has a timer


@dataclass(frozen=True)
class Transcript:
    """The recognised text of one file."""

    path: Path
    seconds: float
    chunks: list[ChunkTranscript]  # in order; none where all is silent
    warnings: list[str] = field(default_factory=list)  # what a user should know of it

    @property
    def text(self) -> str:
        """The texts of all chunks."""
        return " ".join(" ".join(chunk.hypotheses[0].text for chunk in self.chunks).split())


@dataclass(frozen=True)
class Failure:
    """A file without a transcript, and why in one line."""

    path: Path
    reason: str
