"""Search: encoded utterances -> texts, batched on the device.

An utterance's text does not depend on the rest of its batch.
"""

from las.config import SearchConfig
from las.decoding.beam_search import beam_search
from las.decoding.greedy import greedy
from las.decoding.hypothesis import Hypothesis, LanguageModel
from las.model.las import LAS, Encoded


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
        lm: a language model, on the model's device; of characters and words, if it is a
            :class:`las.decoding.hypothesis.CharacterAndWordLM`.

    Returns:
        In the batch's order, 1 to ``config.n_best`` hypotheses each, best first.
    """
    config = config or SearchConfig()
    if config.greedy and lm is None:
        return [[hypothesis] for hypothesis in greedy(model, encoded)]
    return beam_search(model, encoded, config, lm)


def describe(config: SearchConfig, lm: str | None = None, words: str | None = None) -> str:
    """The settings that differ from the defaults, in one line for reports.

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
