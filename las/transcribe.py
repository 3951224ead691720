"""Audio files -> texts, batched; what stands beside a file does not change its text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from las import audio
from las.errors import LASError
from las.model import LAS
from las.search import Hypothesis, greedy


@dataclass(frozen=True)
class Transcript:
    """The text of one file."""

    path: Path
    text: str
    seconds: float
    hypothesis: Hypothesis
    waveform: np.ndarray  # [S] at the model's rate


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
    """

    def __init__(self, model: LAS, device: torch.device) -> None:
        self.model = model.eval()
        self.device = device

    def files(
        self, paths: Sequence[Path], batch_seconds: float = 120.0
    ) -> Iterator[Transcript | Failure]:
        """Transcribe files, in their order.

        Args:
            paths: the files.
            batch_seconds: of padded audio to take at once, at most.
        """
        for group in self._groups(paths, batch_seconds):
            waveforms = [(path, w) for path, w in group if isinstance(w, np.ndarray)]
            hypotheses = iter(self.waveforms([w for _, w in waveforms]) if waveforms else [])
            for path, waveform in group:
                if isinstance(waveform, LASError):
                    yield Failure(path, str(waveform))
                else:
                    hypothesis = next(hypotheses)
                    seconds = len(waveform) / self.model.config.frontend.sample_rate
                    yield Transcript(path, hypothesis.text, seconds, hypothesis, waveform)

    @torch.inference_mode()
    def waveforms(self, waveforms: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Transcribe waveforms [S] at the model's rate as one batch."""
        padded = pad_sequence([torch.from_numpy(w) for w in waveforms], batch_first=True)
        samples = torch.tensor([len(w) for w in waveforms])
        encoded = self.model.encode(padded.to(self.device), samples.to(self.device))
        return greedy(self.model, encoded)

    def _groups(
        self, paths: Iterable[Path], batch_seconds: float
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
            if group and (len(group) + 1) * max(longest, samples) > batch_seconds * rate:
                yield group
                group, longest = [], 0
            group.append((path, waveform))
            longest = max(longest, samples)
        if group:
            yield group
