"""Greedy search with the speller, and the best path of the CTC head."""

import numpy as np
import torch
from torch import Tensor

from las.decoding.beam_search import step_limits
from las.decoding.hypothesis import Hypothesis
from las.model.las import LAS, Encoded
from las.text.characters import BLANK, EOS


@torch.inference_mode()
def greedy(model: LAS, encoded: Encoded) -> list[Hypothesis]:
    """The most likely character at every step, until all utterances of the batch have ended.

    The steps are limited by :func:`las.decoding.beam_search.step_limits`.

    Args:
        model: in evaluation mode.
        encoded: the batch.

    Returns:
        One hypothesis an utterance, in the batch's order.
    """
    limits = step_limits(encoded)
    found = model.speller.greedy(encoded.memory, limits) or _step_by_step(model, encoded, limits)
    ids, log_probs, attention = (x.cpu() for x in found)
    attention = attention.float()
    # In the order and precision of beam search, which adds them up step by step.
    scores = np.add.accumulate(log_probs.numpy(), axis=1, dtype=np.float32)
    hypotheses = []
    for row, limit in enumerate(limits.tolist()):
        length = min([limit, *(ids[row] == EOS).nonzero()[:1, 0].add(1).tolist()])
        frames = int(encoded.memory.lengths[row])
        hypotheses.append(
            Hypothesis.from_ids(
                model.text,
                ids[row, :length],
                float(scores[row, length - 1]),
                bool(ids[row, length - 1] == EOS),
                attention[row, :length, :, :frames],
                log_probs[row, :length],
            )
        )
    return hypotheses


def _step_by_step(model: LAS, encoded: Encoded, limits: Tensor) -> tuple[Tensor, ...]:
    """Ids and their log-probabilities [B, steps], and alignments [B, steps, H, T]."""
    state = model.speller.start(encoded.memory)
    tokens = limits.new_full((limits.shape[0], 1), EOS)
    ended = torch.zeros_like(limits, dtype=torch.bool)
    last_steps = set(limits.tolist())
    ids, chosen, alignments = [], [], []
    while not ended.all():
        logits, state = model.speller.step(encoded.memory, state, tokens)
        log_probs = logits[:, 0].float().log_softmax(-1)
        log_probs[:, BLANK] = float("-inf")
        best, choice = log_probs.max(-1)
        tokens = choice[:, None]  # of utterances that have ended it is not used
        ids.append(choice)
        chosen.append(best)
        alignments.append(state.alignment[:, 0])
        ended = ended | (choice == EOS)
        if len(ids) in last_steps:
            ended = ended | (limits == len(ids))
    return torch.stack(ids, 1), torch.stack(chosen, 1), torch.stack(alignments, 1)


@torch.inference_mode()
def ctc_greedy(model: LAS, encoded: Encoded) -> list[str]:
    """The texts of the CTC head's most likely path (Graves et al. 2006, best path decoding)."""
    texts = []
    for path, length in zip(encoded.ctc.argmax(-1), encoded.ctc_lengths.tolist(), strict=True):
        texts.append(model.text.decode(path[:length].unique_consecutive().tolist()))
    return texts
