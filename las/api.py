"""The library in two calls: ``las.load().transcribe("talk.mp3")``; see docs/api.md."""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor

from las import config_files as configuration
from las.config import SearchConfig
from las.decoding.hypothesis import CharacterAndWordLM, LanguageModel
from las.decoding.presets import (
    WORD_WEIGHT,
    load_lm,
    load_words,
    stored_lm,
    stored_settings,
    stored_words,
)
from las.errors import LASError, LASWarning, shown
from las.lm.word_ngram import WordModel
from las.model.folder import bundled
from las.model.las import LAS
from las.runtime import choose_device
from las.transcription import arrays, confidence
from las.transcription.segments import transcription
from las.transcription.transcriber import Transcriber
from las.transcription.transcript import Failure, Timer, Transcript
from las.transcription.types import Transcription
from las.transcription.word_timestamps import timed_words

Audio: TypeAlias = str | PathLike[str] | np.ndarray | Tensor
"""A file, or samples: [S], or [channels, S]."""


class Recognizer:
    """A model that transcribes; made by :func:`load`. Not for use by two threads at once.

    Args:
        model: the network.
        device: where it is.
        config: settings of the search; the default is greedy.
        lm: a language model for the search, on the same device.
        timer: finds the words of a text, with their times and probabilities.
    """

    def __init__(
        self,
        model: LAS,
        device: torch.device,
        config: SearchConfig | None = None,
        lm: LanguageModel | None = None,
        timer: Timer = timed_words,
    ) -> None:
        self.model = model.eval()
        self.device = device
        self.config = config or SearchConfig()
        self.lm = lm
        self._transcriber = Transcriber(model, device, self.config, lm, timer=timer)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the model in Hz; other audio is resampled to it."""
        return self._transcriber.rate

    def transcribe(
        self, audio: Audio, *, sample_rate: int | None = None, word_timestamps: bool = True
    ) -> Transcription:
        """Transcribe audio of any length.

        Args:
            audio: a file (wav, flac, ogg, opus, mp3, sph, aiff, and what ffmpeg reads where it is
                installed); or an array or tensor of samples [S] or [channels, S], of which the
                channels are averaged. Floats have a full scale of 1; int16 and int32 are scaled.
            sample_rate: Hz of an array; default: :attr:`sample_rate`. Not for files.
            word_timestamps: whether segments hold their words.

        Raises:
            LASError: the file cannot be read, or the samples are not audio: of a wrong shape, too
                short, not finite.
            TypeError: the audio is of another type; the message says what to give.
        """
        (result,) = self.transcribe_many(
            [audio], sample_rate=sample_rate, word_timestamps=word_timestamps
        )
        return result

    @overload
    def transcribe_many(
        self,
        audios: Sequence[Audio],
        *,
        sample_rate: int | None = None,
        word_timestamps: bool = True,
        batch_seconds: float = 120.0,
        return_exceptions: Literal[False] = False,
    ) -> list[Transcription]: ...

    @overload
    def transcribe_many(
        self,
        audios: Sequence[Audio],
        *,
        sample_rate: int | None = None,
        word_timestamps: bool = True,
        batch_seconds: float = 120.0,
        return_exceptions: Literal[True],
    ) -> list[Transcription | LASError]: ...

    def transcribe_many(
        self,
        audios: Sequence[Audio],
        *,
        sample_rate: int | None = None,
        word_timestamps: bool = True,
        batch_seconds: float = 120.0,
        return_exceptions: bool = False,
    ) -> list[Transcription] | list[Transcription | LASError]:
        """Transcribe several in batches: much faster than one by one, and with the same texts.

        Args:
            audios: as for :meth:`transcribe`; files and arrays may be mixed.
            sample_rate: Hz of all arrays.
            word_timestamps: whether segments hold their words.
            batch_seconds: of audio to decode at once, at most; this bounds the memory.
            return_exceptions: return errors in place of results, rather than raise the first one.
                Wrong types are always raised.

        Returns:
            The results, in the order of ``audios``.
        """
        if isinstance(audios, str | PathLike | np.ndarray | Tensor):
            raise TypeError("audios: give a list; transcribe() takes a single one")
        if not isinstance(audios, Sequence):
            raise TypeError(
                f"audios: give a list, not {type(audios).__name__}; list(...) makes one of an "
                "iterable"
            )
        arrays.check_number("sample_rate", sample_rate, "Hz")
        arrays.check_number("batch_seconds", batch_seconds, "seconds")
        kinds = [isinstance(item, str | PathLike) for item in audios]
        if sample_rate is not None and all(kinds):
            raise TypeError("sample_rate: it is for arrays; files have their own")
        results: dict[int, Transcription | LASError] = {}
        files: dict[int, Path] = {}
        waveforms: dict[int, np.ndarray] = {}
        for index, item in enumerate(audios):
            if isinstance(item, str | PathLike):
                files[index] = Path(item)
                continue
            try:
                waveforms[index] = waveform(item, sample_rate, self.sample_rate)
            except LASError as error:
                results[index] = error
        from_files = self._transcriber.files(list(files.values()), batch_seconds=batch_seconds)
        from_arrays = self._transcriber.arrays(
            list(waveforms.values()), batch_seconds=batch_seconds
        )
        for index, result in itertools.chain(
            zip(files, from_files, strict=True), zip(waveforms, from_arrays, strict=True)
        ):
            if isinstance(result, Failure):
                results[index] = LASError(result.reason)
            else:
                name = files.get(index, f"audio {index}")
                for warning in result.warnings:
                    warnings.warn(f"{shown(str(name))}: {warning}", LASWarning, stacklevel=2)
                results[index] = self._result(result, word_timestamps)
        ordered = [results[index] for index in range(len(audios))]
        if return_exceptions:
            return ordered
        done = []
        for entry in ordered:
            if isinstance(entry, LASError):
                raise entry
            done.append(entry)
        return done

    def _result(self, transcript: Transcript, word_timestamps: bool) -> Transcription:
        language = self.model.config.text.language
        found = transcription(transcript, self.sample_rate, language)
        if word_timestamps:
            return found
        return replace(found, segments=[replace(s, words=[]) for s in found.segments])

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.model.parameters())
        return f"<Recognizer: {size:,} parameters, {self.sample_rate} Hz, on {self.device}>"


def load(
    model: str | PathLike[str] | None = None,
    *,
    device: str = "auto",
    lm: str | PathLike[str] | LanguageModel | None = None,
    words: str | PathLike[str] | WordModel | None = None,
    search: SearchConfig | dict[str, Any] | None = None,
) -> Recognizer:
    """Read a model folder.

    Args:
        model: the folder; None is the model that ships with the package.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        lm: a language model for the search, or its folder; None is that of the model folder, if
            its settings use one.
        words: a word model (``las lm words``), likewise.
        search: settings, e.g. ``{"beam": 8, "ctc": 0.3}``, which replace all of the model folder;
            None are those of the folder (``las tune`` stores them), else greedy search.

    Raises:
        LASError: a file is missing, damaged or of another program; a setting is not valid.
    """
    for name, given in (("model", model), ("lm", lm), ("words", words)):
        if isinstance(given, int | float | bytes | list | tuple):
            raise TypeError(f"{name}: give a folder, not {type(given).__name__}")
    if device not in ("auto", "cpu", "cuda"):
        raise LASError(f"device {device!r}: use auto, cpu or cuda")
    folder = bundled() if model is None else Path(model)
    torch_device = choose_device(device)
    las = LAS.from_pretrained(folder, torch_device)
    stored = stored_settings(folder) if search is None else None
    if isinstance(search, dict):
        config = configuration.parse(SearchConfig, dict(search), "settings of the search")
    elif search is not None and not isinstance(search, SearchConfig):
        raise TypeError(f"search: give a dict or a SearchConfig, not {type(search).__name__}")
    else:
        config = search or stored or SearchConfig()
    if lm is None and stored is not None:
        lm = stored_lm(folder, stored)
    elif lm is not None and config.lm_weight == 0 and search is None:
        config = config.model_copy(update={"lm_weight": SearchConfig().lm_weight})
    if isinstance(lm, str | PathLike):
        lm = load_lm(Path(lm), las.text, torch_device)
    if words is None and stored is not None:
        words = stored_words(folder, stored)
    elif words is not None and config.word_weight == 0 and search is None:
        config = config.model_copy(update={"word_weight": WORD_WEIGHT})
    elif words is None and config.word_weight > 0:
        raise LASError("word_weight: there is no word model; give one with words=FOLDER")
    if isinstance(words, str | PathLike):
        words = load_words(Path(words), las.text, torch_device)
    if words is not None:
        lm = CharacterAndWordLM(lm, words)
    return Recognizer(las, torch_device, config, lm, confidence.timer(folder))


def waveform(samples: np.ndarray | Tensor, rate: int | None, target: int) -> np.ndarray:
    """Convert samples to a model's input: float32 [S] at its rate.

    Args:
        samples: [S] or [channels, S]; floats, int16 or int32.
        rate: of the samples in Hz; None is the target.
        target: Hz of the result.

    Raises:
        LASError: they are not audio.
        TypeError: they are not an array or tensor, or their full scale is not known.
    """
    if isinstance(samples, Tensor):
        dense = samples.layout == torch.strided and not samples.is_nested
        if not dense or samples.is_meta or samples.is_quantized:
            raise TypeError(
                "audio: give a dense tensor of numbers, not one that is sparse, nested, quantized "
                "or on the device meta"
            )
        samples = samples.detach().cpu().resolve_conj().resolve_neg()
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    return arrays.waveform(samples, rate, target, "a path, an array or a tensor")
