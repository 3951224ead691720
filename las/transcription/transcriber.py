"""Audio of any length -> text, in bounded memory; results do not depend on other files.

Audio no longer than one chunk of the model is decoded as a whole. Longer audio is read in blocks,
cut into chunks (`las.transcription.chunking`) and decoded in batches across chunks and files. A
chunk with looping or missing text (`las.transcription.quality`) is split and decoded again;
overlapping chunks are stitched (`las.transcription.stitching`).
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from las.audio import reader
from las.config import SearchConfig
from las.decoding.greedy import ctc_greedy
from las.decoding.hypothesis import Hypothesis, LanguageModel
from las.decoding.search import search
from las.model.las import LAS
from las.transcription import result_warnings
from las.transcription.character_times import with_times
from las.transcription.chunking import Chunk, ChunkingConfig, halves
from las.transcription.quality import assess, attention_centres
from las.transcription.recording import Ready, Recording
from las.transcription.stitching import DecodedChunk, stitch
from las.transcription.transcript import (
    ChunkTranscript,
    Failure,
    Reading,
    Timer,
    Transcript,
)


class Transcriber:
    """Transcribes audio with one model.

    Args:
        model: in evaluation mode.
        device: where it is.
        config: settings of the search; the default is greedy.
        lm: a language model for the search, on the same device.
        chunking: how long audio is cut; the default follows from the training utterances' length.
        timer: finds the words of a chunk and their times, while its alignment is still there.
        keep_alignments: of all chunks; memory then grows with the audio, by about 10 kB a second.
            Otherwise alignments have no columns.
    """

    def __init__(
        self,
        model: LAS,
        device: torch.device,
        config: SearchConfig | None = None,
        lm: LanguageModel | None = None,
        *,
        chunking: ChunkingConfig | None = None,
        timer: Timer | None = None,
        keep_alignments: bool = False,
    ) -> None:
        self.model = model.eval()
        self.device = device
        self.config = config or SearchConfig()
        self.lm = lm
        self.chunking = chunking or ChunkingConfig.for_model(model.config)
        self.timer = timer
        self.keep_alignments = keep_alignments
        self.rate = model.config.frontend.sample_rate

    def files(
        self,
        paths: Iterable[str | Path | BinaryIO | Reading],
        *,
        batch_size: int | None = None,
        batch_seconds: float = 60.0,
        progress: Callable[[float], None] | None = None,
        ready: Ready | None = None,
    ) -> Iterator[Transcript | Failure]:
        """Transcribe files, in their order.

        Args:
            paths: the files, binary streams, or what is read otherwise.
            batch_size: chunks to decode at once, at most.
            batch_seconds: of padded audio to decode at once, at most (or a single chunk).
            progress: called with the seconds of audio done so far, of all files together.
            ready: called with every chunk as soon as it is final, in the order of each file. While
                a stream has to be waited for, what there is of it is decoded.
        """
        recordings = map(self.open, paths, itertools.repeat(ready))
        return self._run(recordings, batch_size, batch_seconds, progress)

    def arrays(
        self,
        waveforms: Sequence[np.ndarray],
        *,
        batch_size: int | None = None,
        batch_seconds: float = 60.0,
    ) -> list[Transcript]:
        """Transcribe waveforms [S] of any length at the model's rate; paths are their indices."""
        recordings = (
            Recording.of(
                Path(str(index)),
                iter([np.asarray(waveform, np.float32)]),
                [],
                self.rate,
                self.chunking,
            )
            for index, waveform in enumerate(waveforms)
        )
        found = self._run(recordings, batch_size, batch_seconds, None)
        return [transcript for transcript in found if isinstance(transcript, Transcript)]

    def waveforms(self, waveforms: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Decode waveforms [S] at the model's rate as one batch, each as a whole."""
        return [hypotheses[0] for hypotheses in self.n_best(waveforms)]

    @torch.inference_mode()
    def n_best(self, waveforms: Sequence[np.ndarray]) -> list[list[Hypothesis]]:
        """As :meth:`waveforms`, with up to ``config.n_best`` hypotheses each, best first.

        If there is a timer or alignments are kept, the best has what word times are found from.
        """
        # Callers' arrays may be of any byte order and layout, or read-only.
        arrays = [np.require(w, np.float32, ["C", "W"]) for w in waveforms]
        padded = pad_sequence([torch.from_numpy(w) for w in arrays], batch_first=True)
        samples = torch.tensor([len(w) for w in waveforms])
        encoded = self.model.encode(padded.to(self.device), samples)
        found = search(self.model, encoded, self.config, self.lm)
        if self.config.ctc > 0:  # the CTC head is trusted
            for hypotheses, text in zip(found, ctc_greedy(self.model, encoded), strict=True):
                hypotheses[0] = replace(hypotheses[0], ctc=text)
        if self.timer is not None or self.keep_alignments:
            config, lengths = self.model.config, encoded.ctc_lengths.tolist()
            frame = config.frontend.hop_length * config.listener.ctc_reduction / self.rate
            for hypotheses, array, ctc, T in zip(found, arrays, encoded.ctc, lengths, strict=True):
                hypotheses[0] = with_times(
                    hypotheses[0], ctc[:T], self.model.text, frame, array, self.rate
                )
        return found

    # --- from sources to transcripts --------------------------------------------------------

    def open(self, path: str | Path | BinaryIO | Reading, ready: Ready | None = None) -> Recording:
        """A file, a binary stream or what is read otherwise, of which nothing is read yet.

        Who calls this decides itself which chunks are decoded together:
        :meth:`las.transcription.recording.Recording.next_chunk` reads them, :meth:`decode` decodes
        them, :meth:`add` adds what was found to their recording, and :meth:`result` is the
        transcript of a complete one. Transcripts do not depend on what is decoded together, as long
        as each recording's chunks are added in their order.
        """
        warnings: list[str] = []
        if isinstance(path, Reading):
            name, blocks = path.path, path.blocks(self.rate)
        else:
            name = reader.shown_name(path)
            blocks = reader.blocks(path, self.rate, warnings, lambda: recording.waiting())
        recording = Recording.of(name, blocks, warnings, self.rate, self.chunking)
        recording.ready = ready
        return recording

    def fits(
        self, sizes: Sequence[int], batch_size: int | None = None, batch_seconds: float = 60.0
    ) -> bool:
        """Whether chunks of these numbers of samples are no more than one batch."""
        few = batch_size is None or len(sizes) <= batch_size
        return few and len(sizes) * max(sizes) <= batch_seconds * self.rate

    def _run(
        self,
        recordings: Iterable[Recording],
        batch_size: int | None,
        batch_seconds: float,
        progress: Callable[[float], None] | None,
    ) -> Iterator[Transcript | Failure]:
        """Take chunks of one recording after another; decode whenever a batch is full."""
        queue: deque[Recording] = deque()
        batch: list[tuple[Recording, Chunk]] = []
        done = 0  # samples

        def decode() -> None:
            nonlocal done
            valid = [(recording, chunk) for recording, chunk in batch if not recording.failure]
            batch.clear()
            found = self.decode([chunk for _, chunk in valid], batch_size, batch_seconds)
            for (recording, chunk), parts in zip(valid, found, strict=True):
                done += self.add(recording, chunk, parts)
            if progress is not None and valid:
                progress(done / self.rate)

        def completed() -> Iterator[Transcript | Failure]:
            nonlocal done
            while queue and queue[0].complete:
                recording = queue.popleft()
                done += recording.samples - recording.done
                if progress is not None:
                    progress(done / self.rate)
                yield self.result(recording)

        for recording in recordings:
            queue.append(recording)
            recording.waiting = decode
            while (chunk := recording.next_chunk()) is not None:
                sizes = [len(c.samples) for _, c in batch] + [len(chunk.samples)]
                if batch and not self.fits(sizes, batch_size, batch_seconds):
                    decode()
                    yield from completed()
                batch.append((recording, chunk))
            yield from completed()
        decode()
        yield from completed()

    def decode(
        self,
        chunks: Sequence[Chunk],
        batch_size: int | None = None,
        batch_seconds: float = 60.0,
    ) -> list[list[DecodedChunk]]:
        """Decode chunks; those of bad quality are split in half and decoded again.

        Returns:
            for each chunk itself, or its parts in order if they are better.
        """
        decoded: list[DecodedChunk] = []
        while len(decoded) < len(chunks):
            start = end = len(decoded)
            while end < len(chunks) and (
                end == start
                or self.fits(
                    [len(c.samples) for c in chunks[start : end + 1]], batch_size, batch_seconds
                )
            ):
                end += 1
            found = self.n_best([chunk.samples for chunk in chunks[start:end]])
            decoded += [
                self._assessed(chunk, hypotheses)
                for chunk, hypotheses in zip(chunks[start:end], found, strict=True)
            ]
        splits = [
            [] if whole.quality.good else halves(whole.chunk, self.rate, self.chunking)
            for whole in decoded
        ]
        retries = [half for pair in splits for half in pair]
        again = iter(self.decode(retries, batch_size, batch_seconds) if retries else [])
        results = []
        for whole, pair in zip(decoded, splits, strict=True):
            parts = [part for _ in pair for part in next(again)]
            doubtful = sum(part.quality.doubtful_seconds for part in parts)
            better = bool(parts) and doubtful < whole.quality.doubtful_seconds
            results.append(parts if better else [whole])
        return results

    def _assessed(self, chunk: Chunk, hypotheses: list[Hypothesis]) -> DecodedChunk:
        centres = attention_centres(hypotheses[0], self._frame(chunk))
        quality = assess(hypotheses[0], centres, chunk, self.rate)
        return DecodedChunk(chunk, hypotheses, centres, quality)

    def _frame(self, chunk: Chunk) -> float:
        """Seconds of one frame of the memory."""
        config = self.model.config
        if config.attention.kind == "none":
            return len(chunk.samples) / self.rate
        return config.frontend.hop_length * config.listener.reduction / self.rate

    # --- from decoded chunks to a transcript ------------------------------------------------

    def add(self, recording: Recording, chunk: Chunk, parts: Sequence[DecodedChunk]) -> int:
        """Add what :meth:`decode` found for the next chunk of a recording.

        Returns:
            samples by which it is further.
        """
        for part in parts:
            self._add(recording, part)
        recording.pending -= 1
        further = chunk.end - recording.done
        recording.done = chunk.end
        return further

    def _add(self, recording: Recording, decoded: DecodedChunk) -> None:
        """Add the next chunk; if it waits for one that overlaps it, both are trimmed there.

        What no other overlaps is final at once: of a stream, the next may be long in coming.
        """
        recording.disagreement += result_warnings.disagreement(decoded.hypotheses[0])
        if recording.last is not None:
            final, decoded = stitch(recording.last, decoded, self.rate)
            recording.finish(self._final(final))
        recording.last = decoded if decoded.chunk.overlapped else None
        if recording.last is None:
            recording.finish(self._final(decoded))

    def _final(self, decoded: DecodedChunk) -> ChunkTranscript:
        chunk, frame = decoded.chunk, self._frame(decoded.chunk)
        start = chunk.start / self.rate
        words = self.timer(decoded.hypotheses[0], frame, start) if self.timer else None
        return ChunkTranscript(
            chunk.start,
            chunk.end,
            [self._copied(hypothesis) for hypothesis in decoded.hypotheses],
            frame,
            decoded.centres + start,
            decoded.quality,
            words,
        )

    def _copied(self, hypothesis: Hypothesis) -> Hypothesis:
        """Copy what is kept: its tensors are views that hold those of the whole batch."""
        alignment = hypothesis.alignment
        if not self.keep_alignments:
            alignment = alignment[:, :, :0]
        return replace(
            hypothesis,
            alignment=alignment.clone(),
            ids=hypothesis.ids.clone(),
            log_probs=hypothesis.log_probs.clone(),
            ctc_times=hypothesis.ctc_times if self.keep_alignments else None,
            activity=hypothesis.activity if self.keep_alignments else None,
        )

    def result(self, recording: Recording) -> Transcript | Failure:
        """The transcript of a recording that is complete, or why there is none."""
        if recording.failure:
            return Failure(recording.path, recording.failure)
        if recording.last is not None:
            recording.finish(self._final(recording.last))
        warnings = recording.warnings
        if not recording.chunks:
            silent = self.chunking.silent_dbfs
            warnings.append(result_warnings.nothing_decoded(recording.peak, silent))
        if (doubt := result_warnings.hallucination_warning(recording.disagreement)) is not None:
            warnings.append(doubt)
        seconds = recording.samples / self.rate
        return Transcript(recording.path, seconds, recording.chunks, warnings)
