"""Audio of any length -> text, in bounded memory; what stands beside a file changes nothing.

Audio no longer than one window of the model is decoded as a whole. What is longer is read in
blocks, cut into windows (`las.transcription.chunking`), decoded in batches across windows and
files, judged, split again where that went wrong, and stitched (`las.transcription.stitching`).
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from las.audio import reader
from las.audio.levels import levels
from las.config import SearchConfig
from las.decoding.greedy import ctc_greedy
from las.decoding.hypothesis import Hypothesis, LanguageModel
from las.decoding.search import search
from las.errors import LASError
from las.model.las import LAS
from las.transcription import stitching
from las.transcription.character_times import placed
from las.transcription.chunking import Window, WindowConfig, split
from las.transcription.stitching import Judgement, Piece
from las.transcription.types import Word

_LOUDER_DB = 30.0  # a peak that much above the silence is no quiet recording

_MADE_UP = 0.45
"""Share of letters that the heads write differently, above which there may be no speech.

The bundled model's differ in 0.48 to 1.0 of 13 kinds of noise and music, and in less than 0.45 of
33 of 35 utterances of four corpora; of the other two the text is wrong.
"""

_Source: TypeAlias = tuple[Path, Iterator[np.ndarray], list[str]]
"""What a file is called, its samples, and a list for what is to be said of it."""

Timer = Callable[[Hypothesis, float, float], list[Word]]
"""The words of a hypothesis, from the seconds of a column of its alignment, and of its start."""


@dataclass(frozen=True)
class Decoded:
    """One window after the search; positions are in samples of the file at the model's rate.

    Where the window overlaps with a neighbour, ``hypotheses`` is one, trimmed to what belongs to
    this window: its ids, log-probabilities, alignment and text are those of the words kept, and
    the end of sentence; its score is still that of the whole.
    """

    start: int
    end: int
    hypotheses: list[Hypothesis]  # best first
    frame: float  # seconds of one column of their alignments
    centres: np.ndarray  # [U] seconds from the file's start at which each id was heard
    judgement: Judgement  # of the whole window
    words: list[Word] | None  # if the Transcriber has a timer


@dataclass(frozen=True)
class Transcript:
    """What was said in one file."""

    path: Path
    seconds: float
    windows: list[Decoded]  # in order; none where all is silent
    notes: list[str] = field(default_factory=list)  # what a user should know of it

    @property
    def text(self) -> str:
        """The texts of all windows."""
        return " ".join(" ".join(w.hypotheses[0].text for w in self.windows).split())


@dataclass(frozen=True)
class Failure:
    """A file that gave no text, and why in one line."""

    path: Path
    reason: str


@dataclass
class _Recording:
    """A file on its way."""

    path: Path
    notes: list[str]
    samples: int = 0  # read so far
    peak: float = 0.0  # of them
    heads: np.ndarray = field(default_factory=lambda: np.zeros(2))  # letters that differ, and all
    done: int = 0  # of these, behind us
    waiting: int = 0  # windows that are not decoded yet
    complete: bool = False  # read to its end
    failure: str | None = None
    decoded: list[Decoded] = field(default_factory=list)
    last: Piece | None = None  # not stitched to what follows yet


class Transcriber:
    """Transcribes audio with one model.

    Args:
        model: in evaluation mode.
        device: where it is.
        config: settings of the search; the default is greedy.
        lm: a language model for the search, on the same device.
        limits: how long audio is cut; the default follows from what the model was trained on.
        timer: finds the words of a window and their times, while its alignment is still there.
        keep_alignments: of all windows; memory then grows with the audio, by about 10 kB a second.
            Otherwise alignments have no columns.
    """

    def __init__(
        self,
        model: LAS,
        device: torch.device,
        config: SearchConfig | None = None,
        lm: LanguageModel | None = None,
        *,
        limits: WindowConfig | None = None,
        timer: Timer | None = None,
        keep_alignments: bool = False,
    ) -> None:
        self.model = model.eval()
        self.device = device
        self.config = config or SearchConfig()
        self.lm = lm
        self.limits = limits or WindowConfig.of(model.config)
        self.timer = timer
        self.keep_alignments = keep_alignments
        self.rate = model.config.frontend.sample_rate

    def files(
        self,
        paths: Iterable[str | Path | BinaryIO],
        *,
        batch_size: int | None = None,
        batch_seconds: float = 60.0,
        progress: Callable[[float], None] | None = None,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe files, in their order.

        Args:
            paths: the files, or binary streams.
            batch_size: windows to decode at once, at most.
            batch_seconds: of padded audio to decode at once, at most (or a single window).
            progress: called with the seconds of audio done so far, of all files together.
        """

        def sources() -> Iterator[_Source]:
            for path in paths:
                notes: list[str] = []
                yield reader.shown_name(path), reader.blocks(path, self.rate, notes), notes

        return self._run(sources(), batch_size, batch_seconds, progress)

    def arrays(
        self,
        waveforms: Sequence[np.ndarray],
        *,
        batch_size: int | None = None,
        batch_seconds: float = 60.0,
    ) -> list[Transcript]:
        """Transcribe waveforms [S] of any length at the model's rate; paths are their indices."""
        sources: Iterator[_Source] = (
            (Path(str(index)), iter([np.asarray(waveform, np.float32)]), [])
            for index, waveform in enumerate(waveforms)
        )
        found = self._run(sources, batch_size, batch_seconds, None)
        return [transcript for transcript in found if isinstance(transcript, Transcript)]

    def waveforms(self, waveforms: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Decode waveforms [S] at the model's rate as one batch, each as a whole."""
        return [hypotheses[0] for hypotheses in self.n_best(waveforms)]

    @torch.inference_mode()
    def n_best(self, waveforms: Sequence[np.ndarray]) -> list[list[Hypothesis]]:
        """As :meth:`waveforms`, with up to ``config.n_best`` hypotheses each, best first.

        The best has what times of words are found from, if there is a timer or alignments are kept.
        """
        # Arrays of any byte order and layout, and such as may not be written to.
        plain = [np.require(w, np.float32, ["C", "W"]) for w in waveforms]
        padded = pad_sequence([torch.from_numpy(w) for w in plain], batch_first=True)
        samples = torch.tensor([len(w) for w in waveforms])
        encoded = self.model.encode(padded.to(self.device), samples)
        found = search(self.model, encoded, self.config, self.lm)
        if self.config.ctc > 0:  # the CTC head is trusted
            for several, heard in zip(found, ctc_greedy(self.model, encoded), strict=True):
                several[0] = replace(several[0], ctc=heard)
        if self.timer is not None or self.keep_alignments:
            config, lengths = self.model.config, encoded.ctc_lengths.tolist()
            frame = config.frontend.hop_length * config.listener.ctc_reduction / self.rate
            for several, waveform, ctc, T in zip(found, plain, encoded.ctc, lengths, strict=True):
                several[0] = placed(
                    several[0], ctc[:T], self.model.text, frame, waveform, self.rate
                )
        return found

    # --- from sources to transcripts --------------------------------------------------------

    def _run(
        self,
        sources: Iterable[_Source],
        batch_size: int | None,
        batch_seconds: float,
        progress: Callable[[float], None] | None,
    ) -> Iterator[Transcript | Failure]:
        """Take windows of one source after another; decode whenever a batch is full."""
        queue: deque[_Recording] = deque()
        batch: list[tuple[_Recording, Window]] = []
        done = 0

        def decode() -> None:
            nonlocal done
            good = [(recording, window) for recording, window in batch if not recording.failure]
            batch.clear()
            found = self._decode([window for _, window in good], batch_size, batch_seconds)
            for (recording, window), pieces in zip(good, found, strict=True):
                for piece in pieces:
                    self._append(recording, piece)
                recording.waiting -= 1
                done += window.end - recording.done
                recording.done = window.end
            if progress is not None and good:
                progress(done / self.rate)

        def ready() -> Iterator[Transcript | Failure]:
            nonlocal done
            while queue and queue[0].complete and (queue[0].failure or not queue[0].waiting):
                recording = queue.popleft()
                done += recording.samples - recording.done
                if progress is not None:
                    progress(done / self.rate)
                yield self._result(recording)

        for path, blocks, notes in sources:
            recording = _Recording(path, notes)
            queue.append(recording)
            try:
                for window in split(_counted(blocks, recording), self.rate, self.limits):
                    sizes = [len(w.samples) for _, w in batch] + [len(window.samples)]
                    if batch and not self._fits(sizes, batch_size, batch_seconds):
                        decode()
                        yield from ready()
                    batch.append((recording, window))
                    recording.waiting += 1
            except LASError as error:
                recording.failure = str(error)
            recording.complete = True
            yield from ready()
        decode()
        yield from ready()

    def _fits(self, sizes: list[int], batch_size: int | None, batch_seconds: float) -> bool:
        """Whether windows of these numbers of samples are no more than one batch."""
        few = batch_size is None or len(sizes) <= batch_size
        return few and len(sizes) * max(sizes) <= batch_seconds * self.rate

    def _decode(
        self, windows: list[Window], batch_size: int | None, batch_seconds: float
    ) -> list[list[Piece]]:
        """Decode windows, and halves of what is not good; the pieces of each, in order."""
        pieces: list[Piece] = []
        while len(pieces) < len(windows):
            start = end = len(pieces)
            while end < len(windows) and (
                end == start
                or self._fits(
                    [len(w.samples) for w in windows[start : end + 1]], batch_size, batch_seconds
                )
            ):
                end += 1
            found = self.n_best([window.samples for window in windows[start:end]])
            pieces += [
                self._judged(window, hypotheses)
                for window, hypotheses in zip(windows[start:end], found, strict=True)
            ]
        retries = [
            stitching.halves(p.window, levels(p.window.samples, self.rate), self.rate, self.limits)
            if not p.judgement.good
            else []
            for p in pieces
        ]
        halves = [half for pair in retries for half in pair]
        again = iter(self._decode(halves, batch_size, batch_seconds) if halves else [])
        results = []
        for piece, pair in zip(pieces, retries, strict=True):
            better = [part for _ in pair for part in next(again)]
            doubt = sum(part.judgement.doubt for part in better)
            results.append(better if better and doubt < piece.judgement.doubt else [piece])
        return results

    def _judged(self, window: Window, hypotheses: list[Hypothesis]) -> Piece:
        heard = stitching.centres(hypotheses[0], self._frame(window))
        judgement = stitching.judge(hypotheses[0], heard, window, self.rate)
        return Piece(window, hypotheses, heard, judgement)

    def _frame(self, window: Window) -> float:
        """Seconds of one frame of the memory."""
        config = self.model.config
        if config.attention.kind == "none":
            return len(window.samples) / self.rate
        return config.frontend.hop_length * config.listener.reduction / self.rate

    # --- from pieces to a recording ---------------------------------------------------------

    def _append(self, recording: _Recording, piece: Piece) -> None:
        """Add the next piece; the one before it is then settled."""
        recording.heads += _heads(piece.hypotheses[0])
        if recording.last is not None:
            settled, piece = stitching.stitch(recording.last, piece, self.rate)
            recording.decoded.append(self._settled(settled))
        recording.last = piece

    def _settled(self, piece: Piece) -> Decoded:
        window, frame = piece.window, self._frame(piece.window)
        start = window.start / self.rate
        words = self.timer(piece.hypotheses[0], frame, start) if self.timer else None
        return Decoded(
            window.start,
            window.end,
            [self._kept(hypothesis) for hypothesis in piece.hypotheses],
            frame,
            piece.centres + start,
            piece.judgement,
            words,
        )

    def _kept(self, hypothesis: Hypothesis) -> Hypothesis:
        """Copies of what is to be kept: as it is, it holds the tensors of its whole batch."""
        alignment = hypothesis.alignment
        if not self.keep_alignments:
            alignment = alignment[:, :, :0]
        return replace(
            hypothesis,
            alignment=alignment.clone(),
            ids=hypothesis.ids.clone(),
            log_probs=hypothesis.log_probs.clone(),
            heard=hypothesis.heard if self.keep_alignments else None,
            sound=hypothesis.sound if self.keep_alignments else None,
        )

    def _result(self, recording: _Recording) -> Transcript | Failure:
        if recording.failure:
            return Failure(recording.path, recording.failure)
        if recording.last is not None:
            recording.decoded.append(self._settled(recording.last))
        if not recording.decoded:
            recording.notes.append(_unheard(recording.peak, self.limits))
        differ, letters = recording.heads.tolist()
        if differ > _MADE_UP * letters:
            recording.notes.append(
                "its text may be made up: the two heads of the model agree on "
                f"{max(0.0, 1 - differ / letters):.0%} of it, as where nobody speaks"
            )
        seconds = recording.samples / self.rate
        return Transcript(recording.path, seconds, recording.decoded, recording.notes)


def _counted(blocks: Iterator[np.ndarray], recording: _Recording) -> Iterator[np.ndarray]:
    for block in blocks:
        recording.samples += len(block)
        recording.peak = max(recording.peak, float(np.abs(block).max(initial=0.0)))
        yield block


def _heads(best: Hypothesis) -> np.ndarray:
    """Letters in which the two heads differ, and letters in all; 0 where CTC was not asked."""
    import jiwer

    if not best.ctc or not best.text:
        return np.array([len(best.text) * (best.ctc == ""), len(best.text)], float)
    found = jiwer.process_characters(best.text, best.ctc)
    differ = found.substitutions + found.deletions + found.insertions
    return np.array([differ, len(best.text)], float)


def _unheard(peak: float, limits: WindowConfig) -> str:
    """Why nothing was decoded."""
    if peak == 0.0:
        return "it is silent: all of its samples are 0"
    loudest = 20 * math.log10(peak)
    if loudest > limits.silent_dbfs + _LOUDER_DB:
        return "no speech was found in it: its sound is steady, or short clicks"
    return (
        f"it is too quiet to be heard: its peak is at {loudest:.0f} dB of full scale; amplify it "
        "if somebody speaks"
    )
