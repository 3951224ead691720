"""When the CTC head heard the letters of a text that the search has found.

The text is aligned with the head's frames by the posterior of CTC (Graves et al. 2006): forward and
backward sums over all paths, of which torch's loss gives the result as its gradient. Only the
middle of each letter's posterior is kept, not the head's output.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from las.audio.activity import sounding
from las.decoding.hypothesis import Hypothesis
from las.text.characters import BLANK, Characters
from las.text.subwords import Pieces

_FLAT = 0.5  # of the nats a frame of a head that knows nothing; one that costs more is not believed
_LETTER = 0.06  # seconds from one letter to the next within a piece


def placed(
    hypothesis: Hypothesis,
    ctc: Tensor,
    units: Characters,
    frame: float,
    samples: np.ndarray,
    rate: int,
) -> Hypothesis:
    """A hypothesis with what times of its words are found from.

    Args:
        hypothesis: of the whole audio.
        ctc: as of :func:`letter_times`, and the next two.
        units: of the model.
        frame: seconds.
        samples: the audio [S].
        rate: of the audio, in Hz.
    """
    times = letter_times(ctc, hypothesis.text, units, frame)
    heard = None
    if times is not None:  # the end of sentence is where the last letter is
        heard = torch.from_numpy(np.pad(times, (0, len(hypothesis.ids) - len(times)), "edge"))
    return replace(hypothesis, heard=heard, sound=torch.from_numpy(sounding(samples, rate)))


def letter_times(ctc: Tensor, text: str, units: Characters, frame: float) -> np.ndarray | None:
    """Seconds [U] at which the letters of a text were heard.

    Args:
        ctc: log-probabilities [T, V] of an utterance.
        text: what was written.
        units: of the model; letters of one piece are spread about where it was heard.
        frame: seconds of a frame of ``ctc``.

    Returns:
        Times that never go back, from 0 to T frames; None where the head does not bear the text
        out: it has fewer frames than the text has units, or was never trained.
    """
    ids = units.encode(text)
    T, U = len(ctc), len(ids)
    if not 0 < U <= T:
        return None
    # A label for each place of the text, so that the gradient tells places apart.
    scores = ctc[:, [BLANK, *ids]].float().cpu().numpy()
    with torch.inference_mode(False), torch.enable_grad():
        inputs = torch.tensor(scores, requires_grad=True)
        places, lengths = torch.arange(1, U + 1), (torch.tensor([T]), torch.tensor([U]))
        nats = torch.nn.functional.ctc_loss(
            inputs[:, None], places[None], *lengths, reduction="sum"
        )
        (gradient,) = torch.autograd.grad(nats, inputs)
    if not nats.item() < _FLAT * T * np.log(ctc.shape[1]):
        return None
    posterior = np.exp(scores) - gradient.numpy()
    spelt = units.spell(ids) if isinstance(units, Pieces) else [[i] for i in ids]
    letters = np.array([len(each) for each in spelt])
    return _spread(middle(posterior[:, 1:].T) * frame, letters, T * frame)


def middle(weights: np.ndarray) -> np.ndarray:
    """Frames [U] with half of a row of weights [U, T] on either side; they never go back."""
    summed = np.cumsum(weights.clip(0.0), 1, dtype=np.float64)
    summed = np.pad(summed / np.maximum(summed[:, -1:], 1e-300), ((0, 0), (1, 0)))
    edges = np.arange(summed.shape[1])
    return np.maximum.accumulate([float(np.interp(0.5, row, edges)) for row in summed])


def _spread(middles: np.ndarray, letters: np.ndarray, seconds: float) -> np.ndarray:
    """Times of all letters, so many of each unit: about its middle, and no nearer to another's."""
    edges = np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, [seconds]])
    unit = np.repeat(np.arange(len(letters)), letters)
    place = np.arange(len(unit)) - np.repeat(np.cumsum(letters) - letters, letters)
    times = middles[unit] + _LETTER * (place - (letters[unit] - 1) / 2)
    return times.clip(edges[unit], edges[unit + 1])
