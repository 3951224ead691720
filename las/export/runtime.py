"""Recognition with an exported model: numpy and onnxruntime, without torch.

    from las.export.runtime import load
    load("exported").transcribe("talk.wav")

Shapes use B utterances, S samples, T frames of the memory, U steps, H heads, V vocabulary.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from las.audio import reader
from las.errors import LASError
from las.storage.exported import ExportManifest, GraphFile, read_graph, read_manifest
from las.text.subwords import tokenizer
from las.threads import checked, of_environment
from las.transcription import arrays
from las.transcription.chunking import ChunkingConfig, split

__all__ = ["ExportedModel", "load"]


class Encoded(NamedTuple):
    """A batch as the listener encodes it."""

    keys: np.ndarray  # [B, H, T, A/H]
    values: np.ndarray  # [B, H, T, D/H]
    lengths: np.ndarray  # [B] valid frames
    ctc_input: np.ndarray  # [B, T', D] input of the CTC head
    ctc_lengths: np.ndarray  # [B] valid frames of its output


class Paths(NamedTuple):
    """What greedy search finds: for each step the id, its log-probability, and the attention."""

    ids: np.ndarray  # [B, U]; after the end of sentence, and after the limit, without meaning
    log_probs: np.ndarray  # [B, U]
    alignments: np.ndarray  # [B, U, H, T]


class ExportedModel:
    """A folder that `las export` wrote, ready to recognise. Made by :func:`load`.

    Args:
        folder: of the export.
        threads: CPU threads.

    Attributes:
        manifest: what the folder holds.
        config: settings of the model.
        text: its alphabet, with which ids become a text.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.folder = folder
        self.manifest: ExportManifest = read_manifest(folder)
        self.config = self.manifest.model
        self.text = tokenizer(self.config.alphabet, self.config.pieces, self.config.text.normalizer)
        self._sessions = {
            name: _session(folder, graph, threads) for name, graph in self.manifest.graphs.items()
        }

    def transcribe(self, audio: str | PathLike[str] | np.ndarray) -> str:
        """The text of a file, or of samples [S] or [channels, S] at the model's rate.

        Floats have a full scale of 1; int16 and int32 are scaled. Channels are averaged.

        Raises:
            LASError: the file cannot be read, the samples are not audio, or the audio is longer
                than the model decodes at once (``las transcribe`` cuts it).
            TypeError: the audio is of another type.
        """
        return self.transcribe_many([audio])[0]

    def transcribe_many(
        self, audios: Sequence[str | PathLike[str] | np.ndarray], *, batch_seconds: float = 60.0
    ) -> list[str]:
        """Transcribe several in batches, with the texts of :meth:`transcribe`.

        Args:
            audios: as for :meth:`transcribe`.
            batch_seconds: of padded audio to decode at once, at most (or a single one).

        Raises:
            LASError: as :meth:`transcribe`.
            TypeError: as :meth:`transcribe`.
        """
        rate = self.config.frontend.sample_rate
        texts = [""] * len(audios)
        batch: dict[int, np.ndarray] = {}

        def decode() -> None:
            if batch:
                texts_of = self.decode(list(batch.values()))
                for index, text in zip(batch, texts_of, strict=True):
                    texts[index] = text
            batch.clear()

        for index, audio in enumerate(audios):
            waveform = self._speech(audio, index)
            if waveform is None:
                continue
            longest = max(len(waveform), *map(len, batch.values()), 0)
            if (len(batch) + 1) * longest > batch_seconds * rate:
                decode()
            batch[index] = waveform
        decode()
        return texts

    def decode(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """The texts of waveforms [S] at the model's rate, by greedy search in one batch."""
        samples = np.array([len(waveform) for waveform in waveforms], np.int64)
        padded = np.zeros((len(waveforms), samples.max()), np.float32)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = waveform
        encoded = self.encode(padded, samples)
        limits = self.step_limits(encoded)
        paths = self.greedy(encoded, limits)
        return [
            self.text.decode(ids[:limit].tolist())
            for ids, limit in zip(paths.ids, limits, strict=True)
        ]

    def encode(self, waveforms: np.ndarray, samples: np.ndarray) -> Encoded:
        """Encode waveforms [B, S], zero beyond each one's number of samples [B]."""
        features, lengths = self._run("frontend", waveforms=waveforms, samples=samples)
        return Encoded(*self._run("listener", features=features, lengths=lengths))

    def ctc(self, encoded: Encoded) -> np.ndarray:
        """Log-probabilities [B, T', V] of the CTC head; valid up to ``encoded.ctc_lengths``."""
        return self._run("ctc", ctc_input=encoded.ctc_input)[0]

    def step_limits(self, encoded: Encoded) -> np.ndarray:
        """The most steps for each utterance [B], so that a loop ends."""
        return encoded.ctc_lengths + self.manifest.extra_steps

    def greedy(self, encoded: Encoded, limits: np.ndarray) -> Paths:
        """The most likely id at every step, until all utterances of the batch have ended.

        Args:
            encoded: the batch.
            limits: the most steps for each [B].
        """
        B, H, T, _ = encoded.keys.shape
        memory = {
            "keys": encoded.keys,
            "values": encoded.values,
            "memory_lengths": encoded.lengths,
        }
        valid = np.arange(T) < encoded.lengths[:, None]
        uniform = (valid / encoded.lengths[:, None]).astype(np.float32)
        state = [*self._zero_state(B), np.ascontiguousarray(np.repeat(uniform[:, None], H, 1))]
        tokens = np.full(B, self.manifest.end, np.int64)
        ended = np.zeros(B, bool)
        ids, chosen, alignments = [], [], []
        while not ended.all():
            before = dict(zip(("hidden", "cell", "context", "alignment"), state, strict=True))
            log_probs, *state = self._run("speller", tokens=tokens, **memory, **before)
            log_probs[:, self.manifest.blank] = -np.inf
            tokens = log_probs.argmax(-1)
            ids.append(tokens)
            chosen.append(log_probs[np.arange(B), tokens])
            alignments.append(state[-1])
            ended |= (tokens == self.manifest.end) | (limits <= len(ids))
        return Paths(np.stack(ids, 1), np.stack(chosen, 1), np.stack(alignments, 1))

    def _zero_state(self, batch: int) -> list[np.ndarray]:
        """Hidden and cell [B, L, S] and context [B, D] before the first step."""
        speller, depth = self.config.speller, 2 * self.config.listener.width
        recurrent = (batch, speller.layers, speller.width)
        shapes = (recurrent, recurrent, (batch, depth))
        return [np.zeros(shape, np.float32) for shape in shapes]

    def _run(self, graph: str, **inputs: np.ndarray) -> list[np.ndarray]:
        try:
            found: Any = self._sessions[graph].run(None, inputs)
        except Exception as error:  # its exceptions have no common base
            raise RuntimeError(str(error)) from error
        return list(found)

    def _speech(self, audio: str | PathLike[str] | np.ndarray, index: int) -> np.ndarray | None:
        """Samples to decode; None where all is silent."""
        rate = self.config.frontend.sample_rate
        if isinstance(audio, str | PathLike):
            name, waveform = str(audio), reader.load(Path(audio), rate)
        else:
            name, waveform = f"audio {index}", arrays.waveform(audio, None, rate)
        chunking = ChunkingConfig.for_model(self.config)
        if len(waveform) > round(chunking.max_seconds * rate):
            raise LASError(
                f"{name}: {len(waveform) / rate:.1f} s are more than the "
                f"{chunking.max_seconds:g} s that the model decodes at once; cut it, or use "
                f"`las transcribe --model {self.folder}`, which does"
            )
        found = list(split([waveform], rate, chunking))
        return found[0].samples if found else None


def load(folder: str | PathLike[str], *, threads: int = 0) -> ExportedModel:
    """Load what `las export` wrote.

    Args:
        folder: of the export.
        threads: CPU threads; 0 takes the environment variable ``OMP_NUM_THREADS``, or 1.

    Raises:
        LASError: a file is missing, damaged or of a newer version.
    """
    return ExportedModel(Path(folder), checked(threads, "threads") or of_environment() or 1)


def _session(folder: Path, graph: GraphFile, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    # For int8 exports of before, which have DequantizeLinear: float32 is made once, at loading.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    data = read_graph(folder, graph)
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        reason = " ".join(str(error).split())[:200]
        raise LASError(
            f"{folder / graph.file}: onnxruntime {onnxruntime.__version__} cannot load it "
            f"({reason}); update onnxruntime"
        ) from None
