"""Search: encoded utterances -> texts, batched on the device.

Knows nothing of audio. What a batch holds beside an utterance does not change its text.
"""

import numpy as np
import torch
from torch import Tensor

from las.beam import beam_search, step_limits
from las.config import SearchConfig
from las.hypothesis import Hypothesis, LanguageModel, WithWords
from las.model import LAS, Encoded
from las.text import BLANK, EOS

__all__ = ["Hypothesis", "LanguageModel", "WithWords", "ctc_greedy", "describe", "greedy", "search"]


def search(
    model: LAS,
    encoded: Encoded,
    config: SearchConfig | None = None,
    lm: LanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """The best hypotheses of every utterance of a batch.

    Args:
        model: in evaluation mode.
        encoded: the batch.
        config: settings; the default is greedy search.
        lm: a language model, on the model's device; :class:`las.hypothesis.WithWords` has one of
            words, too.

    Returns:
        In the batch's order, 1 to ``config.n_best`` hypotheses each, best first.
    """
    config = config or SearchConfig()
    if config.greedy and lm is None:
        return [[hypothesis] for hypothesis in greedy(model, encoded)]
    return beam_search(model, encoded, config, lm)


def describe(config: SearchConfig, lm: str | None = None, words: str | None = None) -> str:
    """One line for reports: what differs from the defaults.

    Args:
        config: settings.
        lm: name of the language model, if there is one.
        words: name of the word model, if there is one.
    """
    if config.greedy and lm is None:
        return "greedy"
    parts = [f"beam {config.beam}"]
    for name, field in SearchConfig.model_fields.items():
        value = getattr(config, name)
        if name == "lm_weight":
            parts += [f"lm {lm}", f"lm_weight {value:g}"] if lm is not None else []
        elif name == "word_weight" and value > 0 and words is not None:
            parts += [f"words {words}", f"word_weight {value:g}"]
        elif name not in ("beam", "n_best") and value != field.default:
            parts.append(f"{name} {value:g}")
    return ", ".join(parts)


@torch.inference_mode()
def greedy(model: LAS, encoded: Encoded) -> list[Hypothesis]:
    """The likeliest character at every step, until all utterances of the batch have ended.

    The steps are limited by :func:`las.beam.step_limits`.

    Args:
        model: in evaluation mode.
        encoded: the batch.

    Returns:
        One hypothesis an utterance, in the batch's order.
    """
    limits = step_limits(encoded)
    found = model.speller.write(encoded.memory, limits) or _step_by_step(model, encoded, limits)
    ids, log_probs, attention = (x.cpu() for x in found)
    attention = attention.float()
    # In the order and precision of a search that adds them up as it goes.
    scores = np.add.accumulate(log_probs.numpy(), axis=1, dtype=np.float32)
    hypotheses = []
    for row, limit in enumerate(limits.tolist()):
        length = min([limit, *(ids[row] == EOS).nonzero()[:1, 0].add(1).tolist()])
        frames = int(encoded.memory.lengths[row])
        hypotheses.append(
            Hypothesis.of(
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
    written, chosen, alignments = [], [], []
    while not ended.all():
        logits, state = model.speller.step(encoded.memory, state, tokens)
        log_probs = logits[:, 0].float().log_softmax(-1)
        log_probs[:, BLANK] = float("-inf")
        best, choice = log_probs.max(-1)
        tokens = choice[:, None]  # of utterances that have ended, whatever it may be
        written.append(choice)
        chosen.append(best)
        alignments.append(state.alignment[:, 0])
        ended = ended | (choice == EOS)
        if len(written) in last_steps:
            ended = ended | (limits == len(written))
    return torch.stack(written, 1), torch.stack(chosen, 1), torch.stack(alignments, 1)


@torch.inference_mode()
def ctc_greedy(model: LAS, encoded: Encoded) -> list[str]:
    """The texts of the CTC head's likeliest path (Graves et al. 2006, best path decoding)."""
    texts = []
    for path, length in zip(encoded.ctc.argmax(-1), encoded.ctc_lengths.tolist(), strict=True):
        texts.append(model.text.decode(path[:length].unique_consecutive().tolist()))
    return texts
