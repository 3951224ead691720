"""Alignment of reference and hypothesis words: hits, substitutions, deletions, insertions."""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

_WIDTH = 100  # columns of the aligned lines
_GAP = "***"  # in place of a word that only the other line has


@dataclass(frozen=True)
class Utterance:
    """An utterance with its reference and its hypothesis."""

    id: str
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Aligned:
    """Steps (mark, reference word, hypothesis word); marks are S, D, I and a space for a hit."""

    steps: tuple[tuple[str, str, str], ...]

    def count(self, mark: str) -> int:
        """Number of steps with a mark."""
        return sum(step[0] == mark for step in self.steps)

    @property
    def errors(self) -> int:
        """Number of word errors."""
        return len(self.steps) - self.count(" ")

    @property
    def words(self) -> int:
        """Number of reference words."""
        return len(self.steps) - self.count("I")


def align(utterances: Sequence[Utterance]) -> list[Aligned]:
    """Align the words of each utterance with the fewest errors; white space is collapsed."""
    output = jiwer.process_words(*_texts(utterances))
    result = []
    for reference, hypothesis, chunks in zip(
        output.references, output.hypotheses, output.alignments, strict=True
    ):
        steps: list[tuple[str, str, str]] = []
        for chunk in chunks:
            reference_words = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            hypothesis_words = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            if chunk.type == "delete":
                steps += [("D", word, "") for word in reference_words]
            elif chunk.type == "insert":
                steps += [("I", "", word) for word in hypothesis_words]
            else:
                mark = " " if chunk.type == "equal" else "S"
                steps += [
                    (mark, r, h) for r, h in zip(reference_words, hypothesis_words, strict=True)
                ]
        result.append(Aligned(tuple(steps)))
    return result


def character_counts(utterances: Sequence[Utterance]) -> tuple[np.ndarray, np.ndarray]:
    """Character errors and reference characters of each utterance, both [N]."""
    output = jiwer.process_characters(*_texts(utterances))
    errors = [
        sum(
            max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx)
            for c in chunks
            if c.type != "equal"
        )
        for chunks in output.alignments
    ]
    return np.array(errors, np.int64), np.array([len(r) for r in output.references], np.int64)


def aligned_lines(steps: Sequence[tuple[str, str, str]]) -> list[str]:
    """Format steps in groups of three lines, broken between words at `_WIDTH` columns."""
    lines: list[str] = []
    rows = ["REF:", "HYP:", "    "]
    for mark, reference, hypothesis in steps:
        reference, hypothesis = reference or _GAP, hypothesis or _GAP
        width = max(len(reference), len(hypothesis))
        if len(rows[0]) > 4 and len(rows[0]) + 1 + width > _WIDTH:
            lines += [row.rstrip() for row in rows]
            rows = ["REF:", "HYP:", "    "]
        rows = [
            f"{row} {cell:<{width}}"
            for row, cell in zip(rows, (reference, hypothesis, mark), strict=True)
        ]
    return [*lines, *(row.rstrip() for row in rows)]


def _texts(utterances: Sequence[Utterance]) -> tuple[list[str], list[str]]:
    references = [" ".join(u.reference.split()) for u in utterances]
    return references, [" ".join(u.hypothesis.split()) for u in utterances]
