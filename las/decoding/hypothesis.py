"""What search returns, and what it asks of a language model."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from las.text.characters import Characters
from las.text.subwords import Pieces


@dataclass(frozen=True)
class Hypothesis:
    """What was written for one utterance, in characters whatever the model's units are."""

    text: str
    score: float  # what it was ranked by; greedy: the log-probability of its characters and end
    finished: bool  # False when the step limit cut it off
    alignment: Tensor  # [U, H, T], the attention of each character over the memory
    ids: Tensor  # [U] what was written, with the end of sentence if it finished
    log_probs: Tensor  # [U] the speller's own log-probability of each, whatever else ranked it
    ctc: str | None = None  # what the CTC head hears in the same audio, where that is asked for
    # For times of words, where they were asked for: when the CTC head heard each [U], in seconds
    # from the start of the alignment, if it bears the text out; whether there is sound [N], by
    # `las.audio.activity`.
    heard: Tensor | None = None
    sound: Tensor | None = None

    @classmethod
    def of(
        cls,
        units: Characters,
        ids: Tensor,
        score: float,
        finished: bool,
        alignment: Tensor,
        log_probs: Tensor,
    ) -> "Hypothesis":
        """From the ids of a model's units; the rest is as in the fields, of each unit.

        A piece's characters share its attention. Its log-probability is its first character's,
        from which the others follow for sure.
        """
        text = units.decode(ids.tolist())
        if isinstance(units, Pieces):
            spelt = units.spell(ids.tolist())
            rows = [row for row, letters in enumerate(spelt) for _ in letters]
            first = [place == 0 for letters in spelt for place in range(len(letters))]
            alignment = alignment[rows]
            log_probs = torch.where(torch.tensor(first), log_probs[rows], 0.0)
            ids = ids.new_tensor([letter for letters in spelt for letter in letters])
        return cls(text, score, finished, alignment, ids, log_probs)


class LanguageModel(Protocol):
    """A language model over the ids of ``las.text.characters``; it runs where the search runs.

    The first tokens it is given are ends of sentence; it is never asked about blanks.
    """

    def start(self, batch: int, beams: int) -> Any:
        """State before any character, for [batch, beams] hypotheses."""

    def step(self, state: Any, tokens: Tensor) -> tuple[Tensor, Any]:
        """Read tokens [B, N]; log-probabilities [B, N, V] of what comes next, and the state."""

    def select(self, state: Any, index: Tensor) -> Any:
        """The state whose hypothesis n of utterance b is the old one's ``index[b, n]``."""


class WordScorer(Protocol):
    """Scores words as they end, over the ids of ``las.text``; otherwise as a language model."""

    def start(self, batch: int, beams: int) -> Any:
        """State before any character, for [batch, beams] hypotheses."""

    def step(self, state: Any, tokens: Tensor, unknown: float) -> tuple[Tensor, Any]:
        """Read tokens [B, N]; what each next token adds to scores [B, N, V], and the state.

        It is at most 0; words that are not known cost ``unknown`` more.
        """

    def select(self, state: Any, index: Tensor) -> Any:
        """As :meth:`LanguageModel.select`."""


class WithWords:
    """A language model of words beside one of characters, which may be missing.

    It is the one of characters to all but a search, which asks for :attr:`words`, too.

    Args:
        characters: spells what the words do not know.
        words: on the same device.
    """

    def __init__(self, characters: LanguageModel | None, words: WordScorer) -> None:
        self.characters, self.words = characters, words

    def start(self, batch: int, beams: int) -> Any:
        """As :meth:`LanguageModel.start`, of characters."""
        return self._spelling().start(batch, beams)

    def step(self, state: Any, tokens: Tensor) -> tuple[Tensor, Any]:
        """As :meth:`LanguageModel.step`, of characters."""
        return self._spelling().step(state, tokens)

    def select(self, state: Any, index: Tensor) -> Any:
        """As :meth:`LanguageModel.select`, of characters."""
        return self._spelling().select(state, index)

    def _spelling(self) -> LanguageModel:
        if self.characters is None:
            raise ValueError("words alone predict no characters")
        return self.characters


def parts(lm: LanguageModel | None) -> tuple[LanguageModel | None, WordScorer | None]:
    """The language model of characters and that of words, of what may be both."""
    return (lm.characters, lm.words) if isinstance(lm, WithWords) else (lm, None)
