"""Overlaps of chunks lose and double no word."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from las.text.characters import EOS
from las.transcription.quality import assess, attention_centres
from las.transcription.stitching import DecodedChunk, WordTime, seam, stitch
from tests.transcription.decoded import FRAME, RATE, TEXT, chunk, hypothesis, spread

VOCABULARY = ("ONE", "TWO", "THREE", "A", "THE", "SEVEN", "SEVENTY", "DON'T")

word_lengths = st.lists(
    st.tuples(
        st.sampled_from(VOCABULARY),
        st.floats(0.15, 0.5),  # of the word
        st.floats(0.05, 0.4),  # of the pause behind it
    ),
    min_size=1,
    max_size=30,
)


def timed(words) -> list[tuple[str, float, float]]:
    found, now = [], 0.0
    for word, length, pause in words:
        found.append((word, now, now + length))
        now += length + pause
    return found


def recognised(words, start: float, end: float, random) -> list[WordTime]:
    """The words of a chunk: parts of words at its edges, times that are a little off."""
    found = []
    for word, first, last in words:
        if last <= start or first >= end:
            continue
        time = (max(first, start) + min(last, end)) / 2 + random.uniform(-0.06, 0.06)
        if first < start:
            word = word[-random.integers(0, len(word) + 1) :]
        elif last > end:
            word = word[: random.integers(0, len(word) + 1)]
        if word:
            found.append(WordTime(word, time))
    return found


@given(words=word_lengths, place=st.floats(0.0, 1.0), seed=st.integers(0, 10**6))
def test_no_word_is_lost_or_doubled(words, place, seed):
    words = timed(words)
    start = place * words[-1][2]
    end = start + 2.0
    random = np.random.default_rng(seed)
    before, after = recognised(words, -1.0, end, random), recognised(words, start, 1e9, random)
    kept, first = seam(before, after, start, end)
    assert 0 <= kept <= len(before) and 0 <= first <= len(after)
    joined = [w.text for w in before[:kept] + after[first:]]
    assert joined == [word for word, *_ in words]


@given(words=word_lengths, seed=st.integers(0, 10**6), share=st.floats(0.0, 0.3))
def test_misread_words_keep_the_number_of_words(words, seed, share):
    # Where the same word follows itself and is misread once, nobody could tell which it was.
    words = [(word + "BDFGHJKL"[i % 8], *rest) for i, (word, *rest) in enumerate(words)]
    words = timed(words)
    start = 0.4 * words[-1][2]
    random = np.random.default_rng(seed)

    def misread(found):
        return [WordTime("X" + w.text[1:], w.time) if random.random() < share else w for w in found]

    before = misread(recognised(words, -1.0, start + 2.0, random))
    after = misread(recognised(words, start, 1e9, random))
    kept, first = seam(before, after, start, start + 2.0)
    joined = [w.text for w in before[:kept] + after[first:]]
    assert len(joined) == len(words)
    for text, (word, *_) in zip(joined, words, strict=True):
        assert text[1:] == word[1:]


def test_a_seam_without_a_common_word_is_in_a_pause():
    before = [WordTime("A", 0.5), WordTime("B", 1.3), WordTime("C", 1.75)]
    after = [WordTime("P", 1.35), WordTime("Q", 1.85), WordTime("R", 2.4)]
    assert seam(before, after, 1.0, 2.0) == (2, 1)
    assert seam([], after, 1.0, 2.0) == (0, 0) or seam([], after, 1.0, 2.0)[0] == 0
    assert seam(before, [], 1.0, 2.0)[1] == 0
    assert seam([], [], 1.0, 2.0) == (0, 0)


def decoded_chunk(
    text: str, start: float, seconds: float, overlap: float, times: list[float]
) -> DecodedChunk:
    found = hypothesis(text, times, seconds)
    here = chunk(seconds, start, overlap)
    centres = attention_centres(found, FRAME)
    return DecodedChunk(here, [found, found], centres, assess(found, centres, here, RATE))


def test_stitched_chunks_are_trimmed_in_all_their_parts():
    gap = [0.0]  # where spaces look does not matter
    times = [*spread("ONE", 0, 0.8), *gap, *spread("TWO", 1, 1.8), *gap, *spread("THREE", 2.2, 2.8)]
    left = decoded_chunk("ONE TWO THREE FO", 0.0, 3.8, 0.0, [*times, *gap, *spread("FO", 3.5, 3.8)])
    times = [*spread("EE", 0.05, 0.3), *gap, *spread("FOUR", 1, 1.5), *gap, *spread("FIVE", 2, 2.5)]
    right = decoded_chunk("EE FOUR FIVE", 2.5, 2.7, 1.3, times)
    before, after = stitch(left, right, RATE)
    assert before.hypotheses[0].text + " " + after.hypotheses[0].text == "ONE TWO THREE FOUR FIVE"
    for trimmed, whole in ((before, left), (after, right)):
        (found,) = trimmed.hypotheses
        assert TEXT.decode(found.ids.tolist()) == found.text
        assert int(found.ids[-1]) == EOS
        size = len(found.ids)
        assert size == len(found.text) + 1
        assert len(found.log_probs) == len(found.alignment) == len(trimmed.centres) == size
        np.testing.assert_array_equal(
            attention_centres(found, FRAME), trimmed.centres
        )  # rows belong to their ids
        rows = found.ctc_times.numpy() / FRAME - (
            trimmed.centres / FRAME - 0.5
        )  # characters, each in its frame
        assert all(-0.01 <= row < 1.01 for row in rows[:-1].tolist())
        assert size < len(whole.hypotheses[0].ids)
        assert trimmed.chunk is whole.chunk


def test_chunks_that_do_not_overlap_stay_as_they_are():
    left = decoded_chunk("ONE TWO", 0.0, 2.0, 0.0, spread("ONE TWO", 0.0, 2.0))
    right = decoded_chunk("TWO", 2.0, 2.0, 0.0, spread("TWO", 0.0, 2.0))
    assert stitch(left, right, RATE) == (left, right)


def test_everything_may_belong_to_one_side():
    left = decoded_chunk("ONE TWO", 0.0, 4.0, 0.0, spread("ONE TWO", 0.0, 4.0))
    right = decoded_chunk("TWO", 3.0, 1.5, 1.0, spread("TWO", 0.1, 0.2))
    before, after = stitch(left, right, RATE)
    assert f"{before.hypotheses[0].text} {after.hypotheses[0].text}".split() == ["ONE", "TWO"]
    empty = decoded_chunk("", 3.0, 1.5, 1.0, [])
    before, after = stitch(left, empty, RATE)
    assert after.hypotheses[0].text == ""
