"""The benchmark of words' times knows where the words are."""

import numpy as np
import pytest

from benchmarks.system import word_times
from benchmarks.system.word_times import NONE, PAUSE, RATE, errors, joined, sound
from las.transcription.types import Segment, Transcription, Word

TONE = np.sin(np.arange(RATE // 2)).astype(np.float32)
PIECES = [("ONE TWO", TONE), ("THREE", TONE[:3000]), ("FOUR FIVE SIX", TONE)]


def transcription(made, late, changes=()):
    """What was said, each word a share of its piece, so late; with some words changed."""
    words = []
    for text, start, end in made.pieces:
        edges = np.linspace(start, end, len(text.split()) + 1) + late
        words += [
            Word(w, a, b, 1.0) for w, a, b in zip(text.split(), edges, edges[1:], strict=False)
        ]
    words = [Word(dict(changes).get(w.word, w.word), w.start, w.end, 1.0) for w in words]
    segment = Segment(0, 0, words[0].start, words[-1].end, "", [], 0.0, 0.0, 1.0, words)
    return Transcription("", [segment], "en", len(made.samples) / RATE)


@pytest.mark.parametrize("noise", [None, 40.0])
def test_pieces_are_where_it_says(noise):
    made = joined(PIECES, PAUSE, noise, np.random.default_rng(0))
    for (_, start, end), (_, samples) in zip(made.pieces, PIECES, strict=True):
        found = made.samples[round(start * RATE) : round(end * RATE)]
        np.testing.assert_allclose(found, samples, atol=0.1 if noise else 0)
    assert made.pieces[0][1] >= PAUSE[0] and made.pieces[1][1] - made.pieces[0][2] >= PAUSE[0]
    np.testing.assert_allclose(list(errors(made, transcription(made, 0.02))), 0.02)


def test_what_was_not_recognised_is_left_out_and_so_are_the_ends_where_pieces_touch():
    made = joined(PIECES, NONE, None, np.random.default_rng(0))
    nan = np.nan
    late = list(errors(made, transcription(made, 0.0)))
    np.testing.assert_allclose(late, [[nan, 0], [0, 0], [0, nan]], atol=1e-9)
    wrong = transcription(made, 0.0, [("FIVE", "FINE")])
    np.testing.assert_allclose(list(errors(made, wrong)), [[nan, 0], [0, 0]], atol=1e-9)


def test_silence_around_the_sound_is_cut():
    quiet = np.full(1000, 1e-4, np.float32)
    found = sound(np.concatenate([quiet, TONE, quiet]))
    assert abs(len(found) - len(TONE)) <= RATE // 50
    assert word_times.CORPUS.is_dir()
