"""Audio files -> texts, batched; what stands beside a file does not change its text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from las import audio
from las.config import SearchConfig
from las.errors import LASError
from las.model import LAS
from las.results import Word
from las.search import Hypothesis, LanguageModel, search

Timer = Callable[[Hypothesis, float, float], list[Word]]
"""The words of a hypothesis, from the seconds of a column of its alignment, and of its start."""


@dataclass(frozen=True)
class Decoded:
    """One window after the search; positions are in samples of the file at the model's rate."""

    start: int
    end: int
    hypotheses: list[Hypothesis]  # best first
    frame: float  # seconds of one column of their alignments
    words: list[Word] | None  # if the Transcriber has a timer


@dataclass(frozen=True)
class Transcript:
    """What was said in one file."""

    path: Path
    seconds: float
    windows: list[Decoded]
    waveform: np.ndarray = field(  # [S] at the model's rate
        default_factory=lambda: np.zeros(0, np.float32)
    )

    @property
    def text(self) -> str:
        """The texts of all windows."""
        return " ".join(" ".join(w.hypotheses[0].text for w in self.windows).split())

    @property
    def hypothesis(self) -> Hypothesis:
        """The best of the first window."""
        return self.windows[0].hypotheses[0]


@dataclass(frozen=True)
class Failure:
    """A file that gave no text, and why in one line."""

    path: Path
    reason: str


class Transcriber:
    """Transcribes files with one model.

    Args:
        model: in evaluation mode.
        device: where it is.
        config: settings of the search; the default is greedy.
        lm: a language model for the search, on the same device.
        timer: finds the words of a window and their times.
    """

    def __init__(
        self,
        model: LAS,
        device: torch.device,
        config: SearchConfig | None = None,
        lm: LanguageModel | None = None,
        *,
        timer: Timer | None = None,
    ) -> None:
        self.model = model.eval()
        self.device = device
        self.config = config or SearchConfig()
        self.lm = lm
        self.timer = timer

    def files(
        self,
        paths: Iterable[Path],
        *,
        batch_size: int | None = None,
        batch_seconds: float = 120.0,
        progress: Callable[[float], None] | None = None,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe files, in their order.

        Args:
            paths: the files.
            batch_size: files to take at once, at most.
            batch_seconds: of padded audio to take at once, at most.
            progress: called with the seconds of audio done so far, of all files together.
        """
        done = 0.0
        for group in self._groups(paths, batch_size, batch_seconds):
            waveforms = [(path, w) for path, w in group if isinstance(w, np.ndarray)]
            found = iter(self.n_best([w for _, w in waveforms]) if waveforms else [])
            for path, waveform in group:
                if isinstance(waveform, LASError):
                    yield Failure(path, str(waveform))
                else:
                    transcript = self._transcript(path, waveform, next(found))
                    done += transcript.seconds
                    if progress is not None:
                        progress(done)
                    yield transcript

    def arrays(self, waveforms: Sequence[np.ndarray]) -> list[Transcript]:
        """Transcribe waveforms [S] at the model's rate as one batch; paths are their indices."""
        return [
            self._transcript(Path(str(index)), waveform, hypotheses)
            for index, (waveform, hypotheses) in enumerate(
                zip(waveforms, self.n_best(waveforms), strict=True)
            )
        ]

    def waveforms(self, waveforms: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Transcribe waveforms [S] at the model's rate as one batch."""
        return [hypotheses[0] for hypotheses in self.n_best(waveforms)]

    @torch.inference_mode()
    def n_best(self, waveforms: Sequence[np.ndarray]) -> list[list[Hypothesis]]:
        """As :meth:`waveforms`, with up to ``config.n_best`` hypotheses each, best first."""
        padded = pad_sequence([torch.from_numpy(w) for w in waveforms], batch_first=True)
        samples = torch.tensor([len(w) for w in waveforms])
        encoded = self.model.encode(padded.to(self.device), samples.to(self.device))
        return search(self.model, encoded, self.config, self.lm)

    def _transcript(
        self, path: Path, waveform: np.ndarray, hypotheses: list[Hypothesis]
    ) -> Transcript:
        config = self.model.config
        seconds = len(waveform) / config.frontend.sample_rate
        frame = config.frontend.hop_length * config.listener.reduction / config.frontend.sample_rate
        if config.attention.kind == "none":
            frame = seconds
        words = self.timer(hypotheses[0], frame, 0.0) if self.timer else None
        window = Decoded(0, len(waveform), hypotheses, frame, words)
        return Transcript(path, seconds, [window], waveform)

    def _groups(
        self, paths: Iterable[Path], batch_size: int | None, batch_seconds: float
    ) -> Iterator[list[tuple[Path, np.ndarray | LASError]]]:
        """Neighbouring files that fit into one batch, read."""
        rate = self.model.config.frontend.sample_rate
        group: list[tuple[Path, np.ndarray | LASError]] = []
        longest = 0
        for path in paths:
            try:
                waveform: np.ndarray | LASError = audio.load(path, rate)
            except LASError as error:
                waveform = error
            samples = len(waveform) if isinstance(waveform, np.ndarray) else 0
            full = batch_size is not None and len(group) >= batch_size
            if group and (full or (len(group) + 1) * max(longest, samples) > batch_seconds * rate):
                yield group
                group, longest = [], 0
            group.append((path, waveform))
            longest = max(longest, samples)
        if group:
            yield group
