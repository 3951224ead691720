"""Audio files -> texts, batched; what stands beside a file does not change its text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from las import audio
from las.config import SearchConfig
from las.errors import LASError
from las.model import LAS
from las.search import Hypothesis, LanguageModel, search


@dataclass(frozen=True)
class Transcript:
    """The text of one file."""

    path: Path
    text: str
    seconds: float
    hypothesis: Hypothesis
    waveform: np.ndarray  # [S] at the model's rate
    n_best: list[Hypothesis]  # the hypothesis, and those ranked below it


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
    """

    def __init__(
        self,
        model: LAS,
        device: torch.device,
        config: SearchConfig | None = None,
        lm: LanguageModel | None = None,
    ) -> None:
        self.model = model.eval()
        self.device = device
        self.config = config or SearchConfig()
        self.lm = lm

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
            found = iter(self.n_best([w for _, w in waveforms]) if waveforms else [])
            for path, waveform in group:
                if isinstance(waveform, LASError):
                    yield Failure(path, str(waveform))
                else:
                    n_best = next(found)
                    seconds = len(waveform) / self.model.config.frontend.sample_rate
                    yield Transcript(path, n_best[0].text, seconds, n_best[0], waveform, n_best)

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
