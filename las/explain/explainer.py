"""Why a text was recognised: alignment, probabilities, and the alternatives of the search.

`las.explain.html` and `las.explain.figure` show what this module finds. Times are in seconds from
the start of the file, logarithms are natural.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from las.audio import reader
from las.config import SearchConfig
from las.decoding.hypothesis import Hypothesis, LanguageModel, WordScorer, split_lm
from las.decoding.search import describe, search
from las.explain.diagnostics import disagreement, warnings
from las.explain.types import Alternative, Character, Explanation, Section, Spike
from las.model.las import LAS, Encoded
from las.text.characters import BLANK, EOS
from las.transcription.transcriber import Transcriber
from las.transcription.transcript import ChunkTranscript, Timer
from las.transcription.word_timestamps import timed_words

MAX_SECONDS = 300.0
"""Longest part of a file that is explained."""
ALTERNATIVES = 5
"""Beam and texts of the search for alternatives, where the search itself has fewer."""

_SILENCE_SECONDS = 20.0  # of a file without speech, to show


def beginning(path: str | Path, rate: int, max_seconds: float) -> tuple[np.ndarray, bool]:
    """The start of a file, no more of which is read.

    Args:
        path: any file that can be transcribed.
        rate: of the waveform, in Hz.
        max_seconds: of it, at most.

    Returns:
        the waveform [S], and whether there is more of the file.

    Raises:
        LASError: it cannot be read.
    """
    blocks, read, limit = [], 0, round(max_seconds * rate)
    for block in reader.blocks(path, rate):
        blocks.append(block)
        read += len(block)
        if read > limit:
            break
    return np.concatenate(blocks)[:limit], read > limit


class Explainer:
    """Explains the texts of one model.

    Args:
        model: in evaluation mode.
        device: where it is.
        config: settings of the search to explain; the default is greedy.
        lm: a language model for the search, on the same device.
        name: of the model.
        timer: finds the words, with their times and probabilities.
    """

    def __init__(
        self,
        model: LAS,
        device: torch.device,
        config: SearchConfig | None = None,
        lm: LanguageModel | None = None,
        name: str = "",
        timer: Timer = timed_words,
    ) -> None:
        self.model, self.device, self.lm, self.name = model.eval(), device, lm, name
        self.timer = timer
        self.config = config or SearchConfig()
        self.transcriber = Transcriber(model, device, self.config, lm, keep_alignments=True)
        self.rate = self.transcriber.rate

    def file(self, path: str | Path, max_seconds: float = MAX_SECONDS) -> Explanation:
        """Explain a file.

        Args:
            path: any file that can be transcribed.
            max_seconds: of it to explain.

        Raises:
            LASError: it cannot be read.
        """
        waveform, cut = beginning(path, self.rate, max_seconds)
        return self.array(waveform, Path(path).name, cut)

    def array(self, waveform: np.ndarray, name: str = "", cut: bool = False) -> Explanation:
        """Explain a waveform [S] at the model's rate; see :meth:`file`."""
        (transcript,) = self.transcriber.arrays([waveform])
        sections = [self._section(waveform, chunk) for chunk in transcript.chunks]
        return Explanation(
            name,
            self.name,
            describe(self.config, "language model" if split_lm(self.lm)[0] is not None else None),
            waveform,
            self.rate,
            cut,
            self.rate / 2,
            sections or [self._silence(waveform)],
        )

    @torch.inference_mode()
    def _section(self, waveform: np.ndarray, chunk: ChunkTranscript) -> Section:
        samples = torch.from_numpy(waveform[chunk.start : chunk.end])[None].to(self.device)
        encoded = self.model.encode(samples, torch.tensor([samples.shape[1]], device=self.device))
        best = chunk.hypotheses[0]
        start, end = chunk.start / self.rate, chunk.end / self.rate
        characters = _characters(best, chunk.frame, start, self.model.text.alphabet)
        ctc = self._spikes(encoded, start)
        words = [  # the last frame of the memory may end after the audio
            replace(word, start=min(word.start, end), end=min(word.end, end))
            for word in self.timer(best, chunk.frame, start)
        ]
        alternatives = self._alternatives(encoded)
        spectrogram, hop = self._spectrogram(samples)
        found = warnings(chunk, characters, words, alternatives)
        found += disagreement(best.text, " ".join("".join(s.text for s in ctc).split()))
        return Section(
            start,
            end,
            spectrogram,
            hop,
            characters,
            best.alignment.mean(1).numpy(),
            chunk.frame,
            ctc,
            words,
            alternatives,
            found,
        )

    def _silence(self, waveform: np.ndarray) -> Section:
        """A section of a file in which there is no speech."""
        start = waveform[: round(_SILENCE_SECONDS * self.rate)]
        spectrogram, hop = self._spectrogram(torch.from_numpy(start)[None].to(self.device))
        warning = "No speech was found in the audio, so nothing was decoded."
        seconds = len(start) / self.rate
        nothing = np.zeros((0, 1), np.float32)
        return Section(0.0, seconds, spectrogram, hop, [], nothing, seconds, [], [], [], [warning])

    @torch.inference_mode()
    def _spectrogram(self, samples: Tensor) -> tuple[np.ndarray, float]:
        """The mel energies of the model's input, before normalisation."""
        frontend = self.model.frontend
        energies = frontend.mel(samples.float())[0].clamp_min(frontend.config.floor)
        decibels = 10.0 * energies.log10()
        return (decibels - decibels.max()).cpu().numpy(), frontend.config.hop_length / self.rate

    def _spikes(self, encoded: Encoded, start: float) -> list[Spike]:
        """The most likely path of the CTC head, without repetitions and blanks."""
        config = self.model.config
        frame = config.frontend.hop_length * config.listener.ctc_reduction / self.rate
        values, path = encoded.ctc[0].max(-1)
        spikes, before = [], BLANK
        for index, (value, token) in enumerate(zip(values.tolist(), path.tolist(), strict=True)):
            if token not in (BLANK, EOS, before):
                time = start + (index + 0.5) * frame
                spikes.append(Spike(self.model.text.decode([token]), time, math.exp(value)))
            before = token
        return spikes

    def _alternatives(self, encoded: Encoded) -> list[Alternative]:
        """Texts of the search, and of a wider one, for the whole chunk, best first."""
        ((own, *others),) = search(self.model, encoded, self.config, self.lm)
        if self.config.beam < ALTERNATIVES or self.config.n_best < ALTERNATIVES:
            beam = max(self.config.beam, ALTERNATIVES)
            wider = self.config.model_copy(update={"beam": beam, "n_best": ALTERNATIVES})
            (others,) = search(self.model, encoded, wider, self.lm)
        unique = {other.text: other for other in others} | {own.text: own}
        ranked = sorted(unique.values(), key=lambda h: (-h.score, h.text))
        return [
            Alternative(
                h.text,
                h.score,
                float(h.log_probs.sum()),
                self._ctc_score(encoded, h),
                self._lm_score(h),
                self._word_score(h),
                h.text == own.text,
            )
            for h in ranked
        ]

    def _ctc_score(self, encoded: Encoded, hypothesis: Hypothesis) -> float:
        ids = torch.tensor([self.model.text.encode(hypothesis.text)])
        loss = torch.nn.functional.ctc_loss(
            encoded.ctc.transpose(0, 1).cpu(),
            ids,
            encoded.ctc_lengths.cpu(),
            torch.tensor([ids.shape[1]]),
            blank=BLANK,
            reduction="sum",
        )
        return -float(loss)

    def _lm_score(self, hypothesis: Hypothesis) -> float | None:
        lm, _ = split_lm(self.lm)
        return None if lm is None else self._summed(lm, lm.step, hypothesis)

    def _word_score(self, hypothesis: Hypothesis) -> float | None:
        _, words = split_lm(self.lm)
        if words is None:
            return None
        step = partial(words.step, unknown=self.config.unknown_word)
        return self._summed(words, step, hypothesis)

    def _summed(
        self,
        model: LanguageModel | WordScorer,
        step: Callable[[Any, Tensor], tuple[Tensor, Any]],
        hypothesis: Hypothesis,
    ) -> float:
        state = model.start(1, 1)
        before, total = torch.full((1, 1), EOS, device=self.device), 0.0
        for token in hypothesis.ids.tolist():
            scores, state = step(state, before)
            total += float(scores[0, 0, token])
            before = torch.full((1, 1), token, device=self.device)
        return total


def _characters(
    hypothesis: Hypothesis, frame: float, start: float, alphabet: str
) -> list[Character]:
    """The steps of a hypothesis; ids beyond the alphabet's first two are its characters."""
    weights = hypothesis.alignment.double().mean(1).numpy()
    weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)
    cumulative = weights.cumsum(1)
    found = []
    rows = zip(hypothesis.ids.tolist(), hypothesis.log_probs.tolist(), strict=True)
    for index, (token, log_prob) in enumerate(rows):
        row = weights[index]
        entropy = -float((row * np.log(np.maximum(row, 1e-12))).sum())
        places = [int(np.argmax(cumulative[index] >= share)) for share in (0.1, 0.5, 0.9 - 1e-9)]
        found.append(
            Character(
                "" if token == EOS else alphabet[token - EOS - 1],
                min(1.0, math.exp(log_prob)),
                start + places[0] * frame,
                start + (places[1] + 0.5) * frame,
                start + (places[2] + 1) * frame,
                math.exp(entropy) * frame,
            )
        )
    return found
