"""Results of transcription: words, segments, and the whole; names and units as openai/whisper's.

Times are in seconds from the start of the file.
"""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Word:
    """A word with its times and its probability."""

    word: str  # without spaces around it
    start: float
    end: float
    probability: float  # 0 to 1


@dataclass(frozen=True)
class Segment:
    """A stretch of speech: what subtitles show at once."""

    id: int  # counted from 0 in a file
    seek: int  # start of the chunk that was decoded, in frames of 10 ms
    start: float
    end: float
    text: str
    tokens: list[int]  # ids of the model's characters
    temperature: float  # always 0: nothing is sampled
    avg_logprob: float  # mean log-probability of the tokens by the speller alone
    compression_ratio: float  # of the text by zlib: high where it repeats itself
    words: list[Word] = field(default_factory=list)


@dataclass(frozen=True)
class Transcription:
    """The result of one file."""

    text: str
    segments: list[Segment]
    language: str  # ISO 639-1
    duration: float

    @property
    def words(self) -> list[Word]:
        """The words of all segments."""
        return [word for segment in self.segments for word in segment.words]

    def to_dict(self, word_timestamps: bool = True) -> dict[str, Any]:
        """For JSON: the keys of whisper's result, and ``duration``.

        Args:
            word_timestamps: whether segments hold their words.
        """
        whole = asdict(self)
        if not word_timestamps:
            for segment in whole["segments"]:
                del segment["words"]
        return whole
