"""The result of a search, and the interface of language models."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from las.text.characters import Characters
from las.text.subwords import Subwords


@dataclass(frozen=True)
class Hypothesis:
    """A recognised text of one utterance, in characters whatever the model's units are."""

    text: str
    score: float  # what it was ranked by; greedy: the log-probability of its characters and end
    finished: bool  # False when the step limit cut it off
    alignment: Tensor  # [U, H, T], the attention of each character over the memory
    ids: Tensor  # [U] of the characters, and of the end of sentence if it finished
    log_probs: Tensor  # [U] of the ids, by the speller alone
    ctc: str | None = None  # text of the CTC head alone, where it was decoded
    # For word times, where they were asked for: the CTC head's time of each id [U], in seconds from
    # the start of the alignment, if the head supports the text; and whether there is sound [N], see
    # `las.audio.activity`.
    ctc_times: Tensor | None = None
    activity: Tensor | None = None

    @classmethod
    def from_ids(
        cls,
        units: Characters,
        ids: Tensor,
        score: float,
        finished: bool,
        alignment: Tensor,
        log_probs: Tensor,
    ) -> "Hypothesis":
        """From the ids of a model's units; the other arguments are as the fields, of each unit.

        The characters of a subword share its attention. Its log-probability is that of its first
        character; the others follow with certainty.
        """
        text = units.decode(ids.tolist())
        if isinstance(units, Subwords):
            spelt = units.to_characters(ids.tolist())
            rows = [row for row, characters in enumerate(spelt) for _ in characters]
            first = [place == 0 for characters in spelt for place in range(len(characters))]
            alignment = alignment[rows]
            log_probs = torch.where(torch.tensor(first), log_probs[rows], 0.0)
            ids = ids.new_tensor([id for characters in spelt for id in characters])
        return cls(text, score, finished, alignment, ids, log_probs)


class LanguageModel(Protocol):
    """A language model over the ids of ``las.text.characters``; it runs where the search runs.

    The first tokens it is given are ends of sentence; it is never asked about blanks.
    """

    def start(self, batch: int, beams: int) -> Any:
        """State before any character, for [batch, beams] hypotheses."""

    def step(self, state: Any, tokens: Tensor) -> tuple[Tensor, Any]:
        """Read tokens [B, N]; log-probabilities [B, N, V] of the next ones, and the new state."""

    def select(self, state: Any, index: Tensor) -> Any:
        """The state whose hypothesis n of utterance b is the old one's ``index[b, n]``."""


class WordScorer(Protocol):
    """Scores words as they end, over the ids of ``las.text``; otherwise as a language model."""

    def start(self, batch: int, beams: int) -> Any:
        """State before any character, for [batch, beams] hypotheses."""

    def step(self, state: Any, tokens: Tensor, unknown: float) -> tuple[Tensor, Any]:
        """Read tokens [B, N]; the scores [B, N, V] of the next ones, and the new state.

        Scores are at most 0; unknown words cost ``unknown`` more.
        """

    def select(self, state: Any, index: Tensor) -> Any:
        """As :meth:`LanguageModel.select`."""


class CharacterAndWordLM:
    """A language model of characters, which may be missing, and one of words.

    Its own methods are those of the character model; a search uses :attr:`words` as well.

    Args:
        characters: scores unknown words by their spelling.
        words: on the same device.
    """

    def __init__(self, characters: LanguageModel | None, words: WordScorer) -> None:
        self.characters, self.words = characters, words

    def start(self, batch: int, beams: int) -> Any:
        """As :meth:`LanguageModel.start`, of characters."""
        return self._character_lm().start(batch, beams)

    def step(self, state: Any, tokens: Tensor) -> tuple[Tensor, Any]:
        """As :meth:`LanguageModel.step`, of characters."""
        return self._character_lm().step(state, tokens)

    def select(self, state: Any, index: Tensor) -> Any:
        """As :meth:`LanguageModel.select`, of characters."""
        return self._character_lm().select(state, index)

    def _character_lm(self) -> LanguageModel:
        if self.characters is None:
            raise ValueError("a word model alone predicts no characters")
        return self.characters


def split_lm(lm: LanguageModel | None) -> tuple[LanguageModel | None, WordScorer | None]:
    """The language model of characters and that of words; None for what there is not."""
    return (lm.characters, lm.words) if isinstance(lm, CharacterAndWordLM) else (lm, None)
