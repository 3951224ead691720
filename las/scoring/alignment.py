"""Recognised words against those said: which were hit, substituted, deleted or inserted."""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

_WIDTH = 100  # columns of the aligned lines
_GAP = "***"  # stands where the other line has a word


@dataclass(frozen=True)
class Utterance:
    """One utterance: what was said and what was recognised."""

    id: str
    reference: str
    hypothesis: str


@dataclass(frozen=True)
class Aligned:
    """Steps (mark, reference word, hypothesis word); the mark of a hit is a space."""

    steps: tuple[tuple[str, str, str], ...]

    def count(self, mark: str) -> int:
        """How many steps have this mark: S, D, I or a space."""
        return sum(step[0] == mark for step in self.steps)

    @property
    def errors(self) -> int:
        """All but the hits."""
        return len(self.steps) - self.count(" ")

    @property
    def words(self) -> int:
        """Of the reference."""
        return len(self.steps) - self.count("I")


def align(utterances: Sequence[Utterance]) -> list[Aligned]:
    """Align each utterance's words by the least number of errors; whitespace is collapsed."""
    output = jiwer.process_words(*_texts(utterances))
    result = []
    for reference, hypothesis, chunks in zip(
        output.references, output.hypotheses, output.alignments, strict=True
    ):
        steps: list[tuple[str, str, str]] = []
        for chunk in chunks:
            said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            if chunk.type == "delete":
                steps += [("D", word, "") for word in said]
            elif chunk.type == "insert":
                steps += [("I", "", word) for word in heard]
            else:
                mark = " " if chunk.type == "equal" else "S"
                steps += [(mark, r, h) for r, h in zip(said, heard, strict=True)]
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
    """Lay steps out in groups of three lines, broken between words at `_WIDTH` columns."""
    lines: list[str] = []
    rows = ["REF:", "HYP:", "    "]
    for mark, said, heard in steps:
        said, heard = said or _GAP, heard or _GAP
        width = max(len(said), len(heard))
        if len(rows[0]) > 4 and len(rows[0]) + 1 + width > _WIDTH:
            lines += [row.rstrip() for row in rows]
            rows = ["REF:", "HYP:", "    "]
        rows = [
            f"{row} {cell:<{width}}" for row, cell in zip(rows, (said, heard, mark), strict=True)
        ]
    return [*lines, *(row.rstrip() for row in rows)]


def _texts(utterances: Sequence[Utterance]) -> tuple[list[str], list[str]]:
    references = [" ".join(u.reference.split()) for u in utterances]
    return references, [" ".join(u.hypothesis.split()) for u in utterances]
