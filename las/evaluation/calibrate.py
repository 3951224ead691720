"""Calibration of word probabilities, so that they say how often a word is correct.

A speller that is trained on little data is overconfident, and its probabilities depend on the
search. Platt scaling (Platt 1999) is a logistic map with two parameters, so that a thousand words
of several speakers are enough to fit it. `las calibrate` writes them to ``confidence.yaml`` in the
model folder; without that file probabilities are those of the speller.
"""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from las.config import SearchConfig
from las.decoding.hypothesis import Hypothesis, LanguageModel
from las.decoding.search import search
from las.errors import LASError
from las.model.las import LAS
from las.transcription.confidence import Calibration, logit, sigmoid
from las.transcription.word_timestamps import word_probabilities

BINS = 10  # for the expected calibration error
_FLATTEST = 0.01  # minimum slope, so that the order of the probabilities is kept
_TOO_FEW = "there are not two speakers with words: give more manifests or utterances"
_STEPS = 50  # of Newton's method, which needs about ten


class ScoredWords(NamedTuple):
    """Recognised words of a speaker."""

    probabilities: np.ndarray  # [N] of the speller
    correct: np.ndarray  # [N] booleans, whether the reference has the word


def expected_error(probabilities: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017), 0 to 1.

    Words are binned by probability, in bins of equal width. The error is the mean over words of the
    difference between the mean probability and the share of correct words in their bin.

    Args:
        probabilities: [N], at least one.
        correct: [N] booleans.
        bins: number of bins.
    """
    at = np.minimum((np.asarray(probabilities) * bins).astype(int), bins - 1)
    excess = np.bincount(at, np.asarray(probabilities) - np.asarray(correct), bins)
    return float(np.abs(excess).sum() / len(at))


def fit(probabilities: np.ndarray, correct: np.ndarray) -> Calibration:
    """Fit the map by maximum likelihood.

    Args:
        probabilities: [N] of words, by the speller.
        correct: [N] booleans.
    """
    correct = np.asarray(correct, bool)
    count = correct.sum()
    # Platt's targets keep the fit finite where all words are correct or all are wrong.
    targets = np.where(correct, (count + 1) / (count + 2), 1 / (len(correct) - count + 2))
    inputs = np.stack([logit(probabilities), np.ones(len(correct))], 1)
    weights = _newton(inputs, targets)
    if weights[0] < _FLATTEST:
        offset = _newton(inputs[:, 1:], targets, _FLATTEST * inputs[:, 0])
        weights = np.array([_FLATTEST, offset[0]])
    return Calibration(slope=float(weights[0]), offset=float(weights[1]))


def _newton(inputs: np.ndarray, targets: np.ndarray, base: np.ndarray | float = 0.0) -> np.ndarray:
    """Weights [D] of a logistic regression of inputs [N, D] on targets [N], beside a base [N]."""
    weights = np.zeros(inputs.shape[1])

    def loss(weights: np.ndarray) -> float:
        x = inputs @ weights + base
        return float((np.logaddexp(0, x) - targets * x).sum())

    for _ in range(_STEPS):
        p = sigmoid(inputs @ weights + base)
        slope = inputs.T @ (p - targets)
        curve = (inputs * (p * (1 - p))[:, None]).T @ inputs + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(curve, slope)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step /= 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return weights


@torch.inference_mode()
def score_words(
    model: LAS,
    manifests: Iterable[Path],
    device: torch.device,
    config: SearchConfig | None = None,
    lm: LanguageModel | None = None,
    batch_seconds: float = 60.0,
) -> dict[str, ScoredWords]:
    """Recognise manifests and score the words, by speaker.

    Args:
        model: in evaluation mode.
        manifests: of ``las prepare``.
        device: where the model is.
        config: settings of the search; the default is greedy.
        lm: a language model for the search, on the same device.
        batch_seconds: audio in a batch.

    Raises:
        LASError: a manifest or one of its files is not usable, or there is only one speaker.
    """
    # Slow to import (lhotse), and not needed to apply a map.
    from las.data.dataset import evaluation_batches
    from las.data.manifests import check_alphabet, read_manifest

    sets = []
    for path in manifests:
        cuts = read_manifest(path)
        check_alphabet(cuts, model.text, str(path))
        sets.append((cuts, {cut.id: cut.supervisions[0].speaker or cut.id for cut in cuts}))
    if len({name for _, speakers in sets for name in speakers.values()}) < 2:
        raise LASError(_TOO_FEW)
    found: dict[str, list[tuple[float, bool]]] = {}
    rate = model.config.frontend.sample_rate
    for cuts, speakers in sets:
        for batch in evaluation_batches(
            cuts, model.text, sample_rate=rate, batch_seconds=batch_seconds
        ):
            if isinstance(batch, LASError):
                raise batch
            encoded = model.encode(batch.waveforms.to(device), batch.samples)
            best = [several[0] for several in search(model, encoded, config, lm)]
            for id, pairs in zip(
                batch.ids, word_outcomes(batch.ids, batch.texts, best), strict=True
            ):
                found.setdefault(speakers[id], []).extend(pairs)
    return {name: _scored_words(pairs) for name, pairs in sorted(found.items())}


def _scored_words(pairs: Sequence[tuple[float, bool]]) -> ScoredWords:
    probabilities, correct = zip(*pairs, strict=True) if pairs else ((), ())
    return ScoredWords(np.array(probabilities, float), np.array(correct, bool))


def word_outcomes(
    ids: Sequence[str], texts: Sequence[str], hypotheses: Sequence[Hypothesis]
) -> list[list[tuple[float, bool]]]:
    """Probability of each recognised word, and whether it is correct, by utterance."""
    from las.scoring.alignment import Utterance, align  # jiwer

    utterances = [
        Utterance(*both) for both in zip(ids, texts, (h.text for h in hypotheses), strict=True)
    ]
    return [
        list(
            zip(
                word_probabilities(hypothesis),
                (mark == " " for mark, _, _ in aligned.steps if mark != "D"),
                strict=True,
            )
        )
        for hypothesis, aligned in zip(hypotheses, align(utterances), strict=True)
    ]


def concatenate(words: Iterable[ScoredWords]) -> ScoredWords:
    """The words of several speakers."""
    return ScoredWords(*(np.concatenate(values) for values in zip(*words, strict=True)))


def held_out(words: dict[str, ScoredWords], seed: int = 0) -> ScoredWords:
    """Words with probabilities calibrated on other speakers: two-fold cross-validation.

    Speakers are split into random halves; the map of each half is applied to the other.

    Args:
        words: by speaker.
        seed: of the split.

    Raises:
        LASError: a half has no words.
    """
    names = random.Random(seed).sample(sorted(words), len(words))
    halves = [
        concatenate([words[n] for n in half]) if half else None
        for half in (names[::2], names[1::2])
    ]
    first, second = halves
    if first is None or second is None or not (len(first.correct) and len(second.correct)):
        raise LASError(_TOO_FEW)
    return concatenate(
        ScoredWords(fit(*one).of(other.probabilities), other.correct)
        for one, other in ((first, second), (second, first))
    )
