"""Explanations of texts. Times are in seconds from the start of the file."""

from dataclasses import dataclass

import numpy as np

from las.transcription.types import Word


@dataclass(frozen=True)
class Character:
    """One step of the speller."""

    text: str  # one character; empty for the end of sentence
    probability: float
    start: float  # a tenth of its attention is before
    centre: float  # half of its attention is before
    end: float  # a tenth of its attention is after
    width: float  # seconds: the frames attended to, as the exponential of the entropy


@dataclass(frozen=True)
class Spike:
    """A character on the most likely path of the CTC head."""

    text: str
    time: float
    probability: float


@dataclass(frozen=True)
class Alternative:
    """A text that the search considered for a chunk, with log-probabilities of the whole text."""

    text: str
    score: float  # what it was ranked by
    attention: float  # by the speller
    ctc: float  # by the CTC head; minus infinity where it cannot be aligned
    lm: float | None  # by the language model, if there is one
    words: float | None  # by the word model, if there is one
    chosen: bool


@dataclass(frozen=True)
class Section:
    """A chunk of audio with all that is known of its decoding."""

    start: float
    end: float
    spectrogram: np.ndarray  # [M, F] dB below the loudest, lowest band first
    hop: float  # seconds of one of its columns
    characters: list[Character]
    attention: np.ndarray  # [U, T] mean over heads; a row for each character
    frame: float  # seconds of one of its columns
    ctc: list[Spike]
    words: list[Word]
    alternatives: list[Alternative]  # best first
    warnings: list[str]  # why the text may be wrong

    @property
    def text(self) -> str:
        """The recognised text."""
        return "".join(c.text for c in self.characters)

    @property
    def ctc_text(self) -> str:
        """The text of the CTC head alone."""
        return " ".join("".join(spike.text for spike in self.ctc).split())


@dataclass(frozen=True)
class Explanation:
    """All that is known of the decoding of a file."""

    name: str  # of the file
    model: str
    search: str
    waveform: np.ndarray  # [S]
    rate: int  # Hz
    cut: bool  # whether there is more of the file, unexplained
    highest: float  # Hz, of the spectrograms
    sections: list[Section]

    @property
    def seconds(self) -> float:
        """Length of the audio that is explained."""
        return len(self.waveform) / self.rate

    @property
    def text(self) -> str:
        """The texts of all sections."""
        return " ".join(" ".join(section.text for section in self.sections).split())
