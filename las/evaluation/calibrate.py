"""How sure a model is of a word -> how often such a word is right.

A speller that is trained on few data is too sure, and how sure it is depends on the search. A
logistic map of the logit (Platt 1999, with his targets) has two numbers, so that a thousand words
of some speakers are enough to fit it. A model folder keeps them in ``confidence.yaml``
(`las calibrate` writes it); without it probabilities are what the speller says.
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

BINS = 10  # of the expected calibration error
_FLATTEST = 0.01  # slope; a surer word never becomes a less probable one
_TOO_FEW = "there are not two speakers with words: give more manifests or utterances"
_STEPS = 50  # of Newton's method, which needs about ten


class Heard(NamedTuple):
    """The words that a model has written of a speaker's utterances."""

    probabilities: np.ndarray  # [N] as the speller says
    right: np.ndarray  # [N] whether the reference has the word there


def expected_error(probabilities: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017), 0 to 1.

    Words are put into bins of equal width by their probability; the error is the mean over words
    of how far the mean probability of their bin is from the share of its words that are right.

    Args:
        probabilities: [N], at least one.
        right: [N] booleans.
        bins: number of bins.
    """
    at = np.minimum((np.asarray(probabilities) * bins).astype(int), bins - 1)
    excess = np.bincount(at, np.asarray(probabilities) - np.asarray(right), bins)
    return float(np.abs(excess).sum() / len(at))


def fit(probabilities: np.ndarray, right: np.ndarray) -> Calibration:
    """The map of the largest likelihood.

    Args:
        probabilities: [N] of words, as the speller says.
        right: [N] booleans.
    """
    right = np.asarray(right, bool)
    count = right.sum()
    # Platt's targets: words that are all right, or all wrong, do not make it infinitely sure.
    targets = np.where(right, (count + 1) / (count + 2), 1 / (len(right) - count + 2))
    inputs = np.stack([logit(probabilities), np.ones(len(right))], 1)
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
def listen(
    model: LAS,
    manifests: Iterable[Path],
    device: torch.device,
    config: SearchConfig | None = None,
    lm: LanguageModel | None = None,
    batch_seconds: float = 60.0,
) -> dict[str, Heard]:
    """What a model writes of manifests, by speaker.

    Args:
        model: in evaluation mode.
        manifests: of ``las prepare``.
        device: where the model is.
        config: settings of the search; the default is greedy.
        lm: a language model for the search, on the same device.
        batch_seconds: audio in a batch.

    Raises:
        LASError: a manifest or one of its files is not usable, or all are of one speaker.
    """
    # Who only applies a map need not wait for lhotse.
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
            for id, pairs in zip(batch.ids, judged(batch.ids, batch.texts, best), strict=True):
                found.setdefault(speakers[id], []).extend(pairs)
    return {name: _heard(pairs) for name, pairs in sorted(found.items())}


def _heard(pairs: Sequence[tuple[float, bool]]) -> Heard:
    probabilities, right = zip(*pairs, strict=True) if pairs else ((), ())
    return Heard(np.array(probabilities, float), np.array(right, bool))


def judged(
    ids: Sequence[str], texts: Sequence[str], hypotheses: Sequence[Hypothesis]
) -> list[list[tuple[float, bool]]]:
    """Probability of each word that was written, and whether it is right, by utterance."""
    from las.scoring.alignment import Utterance, align  # jiwer

    said = [Utterance(*both) for both in zip(ids, texts, (h.text for h in hypotheses), strict=True)]
    return [
        list(
            zip(
                word_probabilities(hypothesis),
                (mark == " " for mark, _, _ in aligned.steps if mark != "D"),
                strict=True,
            )
        )
        for hypothesis, aligned in zip(hypotheses, align(said), strict=True)
    ]


def together(heard: Iterable[Heard]) -> Heard:
    """The words of several speakers."""
    return Heard(*(np.concatenate(values) for values in zip(*heard, strict=True)))


def held_out(heard: dict[str, Heard], seed: int = 0) -> Heard:
    """Words with the probability that a map gives them which was fitted on other speakers.

    Speakers are drawn into two halves; the map of each half is applied to the other.

    Args:
        heard: by speaker.
        seed: of the draw.

    Raises:
        LASError: a half has no words.
    """
    names = random.Random(seed).sample(sorted(heard), len(heard))
    halves = [
        together([heard[n] for n in half]) if half else None for half in (names[::2], names[1::2])
    ]
    first, second = halves
    if first is None or second is None or not (len(first.right) and len(second.right)):
        raise LASError(_TOO_FEW)
    return together(
        Heard(fit(*one).of(other.probabilities), other.right)
        for one, other in ((first, second), (second, first))
    )
