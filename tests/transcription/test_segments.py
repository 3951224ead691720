"""Segments: no word lost, none too long to read, and whisper's numbers."""

import dataclasses
import math
import textwrap
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from las.decoding.hypothesis import Hypothesis
from las.text.characters import EOS, Characters
from las.transcription.quality import compression_ratio
from las.transcription.segments import LINE, transcription
from las.transcription.transcript import Transcript
from las.transcription.types import Word

RATE = 16000


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What is asked of a ``las.transcription.transcript.ChunkTranscript``."""

    start: int
    end: int
    hypotheses: list[Hypothesis]
    frame: float
    words: list[Word] | None


def decoded(words, start=0.0, end=None, log_prob=-0.2, finished=True, timed=True):
    """A chunk of words given as (text, start, end) in seconds of the file."""
    text = " ".join(word for word, *_ in words)
    ids = Characters().encode(text) + [EOS] * finished
    hypothesis = Hypothesis(
        text,
        0.0,
        finished,
        torch.ones(len(ids), 1, 0 if timed else 50),
        torch.tensor(ids),
        torch.full((len(ids),), log_prob),
    )
    end = words[-1][2] if end is None else end
    given = [Word(word, a, b, 0.9) for word, a, b in words] if timed else None
    return Chunk(round(start * RATE), round(end * RATE), [hypothesis], 0.04, given)


def transcribed(*chunks, seconds=None):
    seconds = chunks[-1].end / RATE if seconds is None else seconds
    return transcription(Transcript(Path("x.wav"), seconds, list(chunks)))


def evenly(text, start=0.0, step=0.3, length=0.25):
    return [(w, start + i * step, start + i * step + length) for i, w in enumerate(text.split())]


def test_one_sentence_is_one_segment():
    result = transcribed(decoded(evenly("TURN ON THE RADIO"), log_prob=-0.5))
    (segment,) = result.segments
    assert (segment.id, segment.seek, segment.start, segment.end) == (0, 0, 0.0, 1.15)
    assert segment.text == result.text == "TURN ON THE RADIO"
    assert Characters().decode(segment.tokens) == segment.text
    assert segment.avg_logprob == pytest.approx(-0.5)
    assert (segment.temperature, result.language, result.duration) == (0.0, "en", 1.15)
    assert [word.word for word in result.words] == result.text.split()


def test_pauses_part_segments():
    words = [*evenly("TURN ON THE RADIO"), *evenly("CALL ANNA", 2.0), *evenly("NOW", 3.0)]
    result = transcribed(decoded(words))
    assert [s.text for s in result.segments] == ["TURN ON THE RADIO", "CALL ANNA NOW"]
    assert [s.id for s in result.segments] == [0, 1]
    assert result.segments[1].start == 2.0


def test_chunks_separate_segments_and_give_their_seek():
    one = decoded(evenly("TURN ON"), end=5.0)
    two = decoded(evenly("THE RADIO", 5.0), start=5.0, end=9.0)
    result = transcribed(one, two)
    assert [(s.text, s.seek) for s in result.segments] == [("TURN ON", 0), ("THE RADIO", 500)]
    assert result.text == "TURN ON THE RADIO"


def test_a_long_text_is_cut_at_its_longest_pause():
    text = "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND THEN IT GOES HOME TO EAT ITS DINNER"
    words = evenly(text, step=0.3, length=0.3)
    words = words[:11] + [(w, a + 0.5, b + 0.5) for w, a, b in words[11:]]
    result = transcribed(decoded(words))
    assert [s.text for s in result.segments] == [
        " ".join(text.split()[:11]),
        " ".join(text.split()[11:]),
    ]


def test_log_probabilities_of_a_segment_are_its_own():
    chunk = decoded([*evenly("AB"), *evenly("CD", 3.0)])
    log_probs = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -9.0])  # A B space C D end
    hypothesis = dataclasses.replace(chunk.hypotheses[0], log_probs=log_probs)
    chunk = dataclasses.replace(chunk, hypotheses=[hypothesis])
    assert [s.avg_logprob for s in transcribed(chunk).segments] == [-2.0, -6.0]


def test_impossible_characters_keep_numbers_finite():
    (segment,) = transcribed(decoded(evenly("AB"), log_prob=-math.inf)).segments
    assert math.isfinite(segment.avg_logprob)


def test_words_are_timed_where_the_window_has_none():
    result = transcribed(decoded(evenly("AB CD"), end=2.0, timed=False))
    assert [word.word for word in result.words] == ["AB", "CD"]


def test_words_of_another_hypothesis_are_refused():
    chunk = dataclasses.replace(decoded(evenly("AB CD")), words=[])
    with pytest.raises(ValueError, match="0 words"):
        transcribed(chunk)


def test_nothing_said():
    for chunks in ([], [decoded(evenly("A"))]):
        chunks = [dataclasses.replace(w, words=[]) for w in chunks]
        for chunk in chunks:
            empty = dataclasses.replace(chunk.hypotheses[0], text="", ids=torch.tensor([EOS]))
            chunk.hypotheses[:] = [empty]
        result = transcribed(*chunks, seconds=3.0)
        assert (result.text, result.segments, result.words, result.duration) == ("", [], [], 3.0)


def test_the_keys_are_whispers():
    result = transcribed(decoded(evenly("AB CD")))
    with_words, without = result.to_dict(), result.to_dict(word_timestamps=False)
    assert list(without) == ["text", "segments", "language", "duration"]
    expected = [
        "id",
        "seek",
        "start",
        "end",
        "text",
        "tokens",
        "temperature",
        "avg_logprob",
        "compression_ratio",
    ]
    assert list(without["segments"][0]) == expected
    assert list(with_words["segments"][0]) == [*expected, "words"]
    assert list(with_words["segments"][0]["words"][0]) == ["word", "start", "end", "probability"]


@given(st.text(min_size=1))
def test_compression_ratio_is_whispers(text):
    data = text.encode("utf-8")
    assert compression_ratio(text) == len(data) / len(zlib.compress(data))


words = st.tuples(
    st.text("ABC'", min_size=1, max_size=12) | st.just("A" * 100),
    st.floats(-1.0, 3.0),
    st.floats(0.0, 4.0),
)
chunks = st.lists(st.tuples(st.floats(0.0, 10.0), st.lists(words, min_size=1, max_size=40)))


@given(chunks, st.floats(0.1, 200.0))
def test_nothing_is_lost_and_time_runs_ahead(drawn, seconds):
    """Whatever the words' times: back over a join, beyond the file, of no length."""
    made, clock = [], 0.0
    for back, drawn_words in drawn:
        clock = start = max(0.0, clock - back)
        words_placed = []
        for text, pause, length in drawn_words:
            words_placed.append((text, clock + max(pause, 0.0), clock + max(pause, 0.0) + length))
            clock = words_placed[-1][2]
        made.append(decoded(words_placed, start=start))
    result = transcribed(*made, seconds=seconds)
    assert result.text.split() == [w for _, ws in drawn for w, *_ in ws]
    flat = [time for word in result.words for time in (word.start, word.end)]
    assert flat == sorted(flat) and all(0.0 <= time <= seconds for time in flat)
    assert [s.id for s in result.segments] == list(range(len(result.segments)))
    for segment in result.segments:
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
        assert Characters().decode(segment.tokens) == segment.text
        if len(segment.words) > 1:
            lines = textwrap.wrap(segment.text, LINE, break_long_words=False)
            assert len(lines) <= 2 and segment.end - segment.start <= 10.0
