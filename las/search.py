"""Search: encoded utterances -> texts, batched on the device.

Knows nothing of audio. What a batch holds beside an utterance does not change its text.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from las.model import LAS, Encoded
from las.text import BLANK, EOS


@dataclass(frozen=True)
class Hypothesis:
    """What was written for one utterance."""

    text: str
    score: float  # sum of the log-probabilities of its characters and its end
    finished: bool  # False when the step limit cut it off
    alignment: Tensor  # [U, H, T], the attention of each character over the memory


@torch.inference_mode()
def greedy(model: LAS, encoded: Encoded) -> list[Hypothesis]:
    """The likeliest character at every step, until all utterances of the batch have ended.

    An utterance gets at most one character a frame of the CTC head (40 ms), and ten more: far
    beyond what anyone says, so that only a loop is cut off.

    Args:
        model: in evaluation mode.
        encoded: the batch.

    Returns:
        One hypothesis an utterance, in the batch's order.
    """
    limits = encoded.ctc_lengths + 10
    B = limits.shape[0]
    state = model.speller.start(encoded.memory)
    tokens = limits.new_full((B, 1), EOS)
    alive = torch.ones_like(limits, dtype=torch.bool)
    steps = torch.zeros_like(limits)
    scores = encoded.ctc.new_zeros(B)
    written, alignments = [], []
    while alive.any():
        logits, state = model.speller.step(encoded.memory, state, tokens)
        log_probs = logits[:, 0].float().log_softmax(-1)
        log_probs[:, BLANK] = float("-inf")
        best, choice = log_probs.max(-1)
        scores += torch.where(alive, best, 0.0)
        steps += alive
        tokens = torch.where(alive, choice, EOS)[:, None]
        written.append(tokens)
        alignments.append(state.alignment[:, 0])
        alive = alive & (choice != EOS) & (steps < limits)
    ids = torch.cat(written, 1).cpu()
    attention = torch.stack(alignments, 1).float().cpu()
    hypotheses = []
    for row in range(B):
        length = int(steps[row])
        frames = int(encoded.memory.lengths[row])
        hypotheses.append(
            Hypothesis(
                model.text.decode(ids[row, :length].tolist()),
                float(scores[row]),
                bool(ids[row, length - 1] == EOS),
                attention[row, :length, :, :frames],
            )
        )
    return hypotheses
