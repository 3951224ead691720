"""What search returns, and what it asks of a language model."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Hypothesis:
    """What was written for one utterance."""

    text: str
    score: float  # what it was ranked by; greedy: the log-probability of its characters and end
    finished: bool  # False when the step limit cut it off
    alignment: Tensor  # [U, H, T], the attention of each character over the memory
    ids: Tensor  # [U] what was written, with the end of sentence if it finished
    log_probs: Tensor  # [U] the speller's own log-probability of each, whatever else ranked it


class LanguageModel(Protocol):
    """A language model over the ids of ``las.text``; it runs where the search runs.

    The first tokens it is given are ends of sentence; it is never asked about blanks.
    """

    def start(self, batch: int, beams: int) -> Any:
        """State before any character, for [batch, beams] hypotheses."""

    def step(self, state: Any, tokens: Tensor) -> tuple[Tensor, Any]:
        """Read tokens [B, N]; log-probabilities [B, N, V] of what comes next, and the state."""

    def select(self, state: Any, index: Tensor) -> Any:
        """The state whose hypothesis n of utterance b is the old one's ``index[b, n]``."""
