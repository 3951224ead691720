"""What an explanation warns of, and where all is well."""

import numpy as np
import pytest
import torch

from las.explain.diagnostics import disagreement, warnings
from las.explain.types import Alternative, Character
from las.transcription.quality import Quality
from las.transcription.transcript import ChunkTranscript
from las.transcription.types import Word

GOOD = Quality(True, 1.0, 1, 0.1, 0.0, 2.0)
CHARACTER = Character("A", 0.9, 0.1, 0.2, 0.3, 0.1)
BEST = Alternative("A", -1.0, -1.0, -1.0, None, None, True)


def warned(quality=GOOD, characters=(CHARACTER,), words=(), alternatives=(BEST,)) -> str:
    hypothesis = type("Hypothesis", (), {"alignment": torch.ones(1, 1, 5) / 5})
    chunk = ChunkTranscript(0, 100, [hypothesis], 0.04, np.zeros(1), quality, None)
    return " ".join(warnings(chunk, characters, words, alternatives))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quality": GOOD._replace(finished=False)}, "limit of steps cut the text off"),
        ({"quality": GOOD._replace(repeats=9)}, "repeats itself"),
        ({"quality": GOOD._replace(compression=5.0)}, "repeats itself"),
        ({"quality": GOOD._replace(untranscribed_seconds=1.5)}, "There is no text for 1.5 s"),
        ({"quality": GOOD._replace(backward_seconds=2.0)}, "Attention went back by 2.0 s"),
        ({"characters": [Character("A", 0.9, 0.0, 0.5, 1.0, 0.9)]}, "1 character (100%) is spread"),
        ({"words": [Word("MAYBE", 0.0, 0.1, 0.31)]}, "not sure of MAYBE (31%)"),
        ({"words": [Word("X", 0.0, 0.1, 0.1)] * 10}, "and 2 more"),
        (
            {
                "alternatives": [
                    Alternative("B", -0.5, -0.5, -1.0, None, None, False),
                    BEST,
                ]
            },
            "more likely text: \u201cB\u201d",
        ),
    ],
)
def test_warnings(changes, words):
    assert words in warned(**changes)


def test_no_warning_where_all_is_well():
    assert warned() == ""
    assert disagreement("THE CAT SAT", "THE CAT SAD") == []


@pytest.mark.parametrize(("text", "ctc"), [("THE CAT", "A DOG"), ("THE CAT", ""), ("", "A DOG")])
def test_heads_that_disagree(text, ctc):
    (warning,) = disagreement(text, ctc)
    assert (ctc or "nothing") in warning
