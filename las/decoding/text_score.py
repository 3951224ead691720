"""The score that a search gives to a known text: tells search errors from model errors."""

import torch

from las.config import SearchConfig
from las.decoding.ctc_prefix_score import CTCPrefixScorer
from las.decoding.hypothesis import LanguageModel, split_lm
from las.errors import LASError
from las.model.las import LAS, Encoded
from las.text.characters import EOS


@torch.inference_mode()
def score_text(
    model: LAS, encoded: Encoded, text: str, config: SearchConfig, lm: LanguageModel | None = None
) -> float:
    """Score a text as :func:`las.decoding.beam_search.beam_search` scores its hypotheses.

    Args:
        model: in evaluation mode.
        encoded: one utterance.
        text: in the model's alphabet; split into units as in training.
        config: settings of the search; its constraints (moves of attention, repeated n-grams) do
            not apply.
        lm: that of the search.

    Returns:
        the score, to be compared with :attr:`las.decoding.hypothesis.Hypothesis.score`.

    Raises:
        LASError: the settings weigh coverage, which is not scored here.
    """
    if config.coverage > 0:
        raise LASError("a given text is not scored with coverage; set coverage to 0")
    characters, words = split_lm(lm)
    characters = characters if config.lm_weight > 0 else None
    words = words if config.word_weight > 0 else None
    ids = model.text.encode(text)
    device = encoded.ctc.device
    ctc = CTCPrefixScorer(encoded.ctc, encoded.ctc_lengths) if config.ctc > 0 else None
    state = model.speller.start(encoded.memory, 1)
    character_state = characters.start(1, 1) if characters is not None else None
    word_state = words.start(1, 1) if words is not None else None
    prefix = ctc.start(1) if ctc is not None else None
    same = torch.zeros(1, 1, dtype=torch.long, device=device)
    last, total = same + EOS, 0.0
    for token in [*ids, EOS]:
        logits, state = model.speller.step(encoded.memory, state, last)
        attention = logits[0, 0].float().log_softmax(-1)
        total += (1 - config.ctc) * float(attention[token])
        if characters is not None:
            scores, character_state = characters.step(character_state, last)
            total += config.lm_weight * float(scores[0, 0, token])
        if words is not None:
            scores, word_state = words.step(word_state, last, config.unknown_word)
            total += config.word_weight * float(scores[0, 0, token])
        if token != EOS and " " in model.text.symbol(token):
            total -= config.word_penalty
        last = same + token
        if ctc is not None and prefix is not None:
            if token == EOS:
                total += config.ctc * float(ctc.score(prefix)[0, 0, EOS])
            else:
                prefix = ctc.extend(prefix, same, last)
    return total / (len(ids) + 1) ** config.length_power + config.length_bonus * len(ids)
