"""Calibrated confidence: a word's probability -> how often such words are correct."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from las import config_files as configuration
from las.config import Settings
from las.decoding.hypothesis import Hypothesis
from las.transcription.types import Word
from las.transcription.word_timestamps import timed_words

CONFIDENCE = "confidence.yaml"
_EPSILON = 1e-6  # keeps logits finite
Number = Annotated[float, Field(allow_inf_nan=False)]


class Calibration(Settings):
    """The probability that a word is correct: sigmoid(slope * logit(p) + offset)."""

    slope: Annotated[Number, Field(gt=0)] = 1.0
    offset: Number = 0.0

    def of(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [N]."""
        return sigmoid(self.slope * logit(probabilities) + self.offset)


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Log-odds [N] of probabilities [N], finite at 0 and 1."""
    p = np.clip(np.asarray(probabilities, np.float64), _EPSILON, 1 - _EPSILON)
    return np.log(p / (1 - p))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Probabilities [N] of log-odds [N]."""
    return 0.5 * (1 + np.tanh(0.5 * x))  # overflows nowhere


def stored(folder: Path) -> Calibration | None:
    """The calibration of a model folder, if it has one.

    Raises:
        LASError: the file cannot be read, or a number is not valid.
    """
    path = folder / CONFIDENCE
    return configuration.load(Calibration, path) if path.exists() else None


def timer(folder: Path) -> Callable[[Hypothesis, float, float], list[Word]]:
    """As `word_timestamps.timed_words`, with probabilities calibrated by a model folder.

    Raises:
        LASError: the calibration in the folder is not valid.
    """
    calibration = stored(folder)
    if calibration is None:
        return timed_words

    def calibrated(hypothesis: Hypothesis, frame: float, offset: float) -> list[Word]:
        words = timed_words(hypothesis, frame, offset)
        found = calibration.of(np.array([word.probability for word in words]))
        return [replace(w, probability=float(p)) for w, p in zip(words, found, strict=True)]

    return calibrated
