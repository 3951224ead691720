"""Times of a text's characters by the CTC head.

The text is aligned with the head's frames by the posterior of CTC (Graves et al. 2006): forward and
backward sums over all paths, of which torch's loss gives the result as its gradient. Only the
median of each character's posterior is kept, not the head's output.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from las.audio.activity import sound_activity
from las.decoding.hypothesis import Hypothesis
from las.text.characters import BLANK, Characters
from las.text.subwords import Subwords

_MAX_LOSS = 0.5  # of the nats per frame of a uniform head; a text that costs more is not aligned
_CHARACTER_SECONDS = 0.06  # from one character to the next within a subword


def with_times(
    hypothesis: Hypothesis,
    ctc: Tensor,
    units: Characters,
    frame: float,
    samples: np.ndarray,
    rate: int,
) -> Hypothesis:
    """Add to a hypothesis what the times of its words are found from.

    Args:
        hypothesis: of the whole audio.
        ctc: as for :func:`character_times`, and the next two.
        units: of the model.
        frame: seconds.
        samples: the audio [S].
        rate: of the audio, in Hz.
    """
    times = character_times(ctc, hypothesis.text, units, frame)
    ctc_times = None
    if times is not None:  # the end of sentence has the time of the last character
        padded = np.pad(times, (0, len(hypothesis.ids) - len(times)), "edge")
        ctc_times = torch.from_numpy(padded)
    activity = torch.from_numpy(sound_activity(samples, rate))
    return replace(hypothesis, ctc_times=ctc_times, activity=activity)


def character_times(ctc: Tensor, text: str, units: Characters, frame: float) -> np.ndarray | None:
    """Seconds [U] of the characters of a text in the CTC head's output.

    Args:
        ctc: log-probabilities [T, V] of an utterance.
        text: what was recognised.
        units: of the model; characters of one subword are spread around its time.
        frame: seconds of a frame of ``ctc``.

    Returns:
        Times that never decrease, from 0 to T frames; None where the head does not support the
        text: it has fewer frames than the text has units, or was never trained.
    """
    ids = units.encode(text)
    T, U = len(ctc), len(ids)
    if not 0 < U <= T:
        return None
    # A label for each position of the text, so that the gradient tells positions apart.
    scores = ctc[:, [BLANK, *ids]].float().cpu().numpy()
    with torch.inference_mode(False), torch.enable_grad():
        inputs = torch.tensor(scores, requires_grad=True)
        labels, lengths = torch.arange(1, U + 1), (torch.tensor([T]), torch.tensor([U]))
        nats = torch.nn.functional.ctc_loss(
            inputs[:, None], labels[None], *lengths, reduction="sum"
        )
        (gradient,) = torch.autograd.grad(nats, inputs)
    if not nats.item() < _MAX_LOSS * T * np.log(ctc.shape[1]):
        return None
    posterior = np.exp(scores) - gradient.numpy()
    spelt = units.to_characters(ids) if isinstance(units, Subwords) else [[i] for i in ids]
    counts = np.array([len(each) for each in spelt])
    return _spread(medians(posterior[:, 1:].T) * frame, counts, T * frame)


def medians(weights: np.ndarray) -> np.ndarray:
    """Frames [U] with half of a row of weights [U, T] on either side; they never decrease."""
    summed = np.cumsum(weights.clip(0.0), 1, dtype=np.float64)
    summed = np.pad(summed / np.maximum(summed[:, -1:], 1e-300), ((0, 0), (1, 0)))
    edges = np.arange(summed.shape[1])
    return np.maximum.accumulate([float(np.interp(0.5, row, edges)) for row in summed])


def _spread(centres: np.ndarray, counts: np.ndarray, seconds: float) -> np.ndarray:
    """Times of all characters from the centres and numbers of characters of their units [U].

    Those of a unit are spread around its centre, up to the middle between it and the next.
    """
    edges = np.concatenate([[0.0], (centres[1:] + centres[:-1]) / 2, [seconds]])
    unit = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(unit)) - np.repeat(np.cumsum(counts) - counts, counts)
    times = centres[unit] + _CHARACTER_SECONDS * (place - (counts[unit] - 1) / 2)
    return times.clip(edges[unit], edges[unit + 1])
