"""Bad windows are known by their signs and cut in halves; overlaps lose and double no word."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from las.audio.levels import levels
from las.decoding.hypothesis import Hypothesis
from las.text.characters import EOS, Characters
from las.transcription import stitching
from las.transcription.chunking import Window, WindowConfig
from las.transcription.stitching import (
    Judgement,
    Piece,
    Spoken,
    centres,
    halves,
    judge,
    repeats,
    seam,
    stitch,
)

RATE = 1000
TEXT = Characters()
FRAME = 0.04
VOCABULARY = ("ONE", "TWO", "THREE", "A", "THE", "SEVEN", "SEVENTY", "DON'T")


def hypothesis(text: str, times: list[float], seconds: float, finished: bool = True) -> Hypothesis:
    """Letters attended at these times of a window; the end at its end."""
    ids = [*TEXT.encode(text), *([EOS] if finished else [])]
    times = [*times, *([seconds] if finished else [])]
    columns = int(np.ceil(seconds / FRAME))
    alignment = torch.zeros(len(ids), 1, columns)
    for row, time in enumerate(times):
        alignment[row, 0, min(columns - 1, int(time / FRAME))] = 1.0
    return Hypothesis(
        text,
        -1.0,
        finished,
        alignment,
        torch.tensor(ids),
        -torch.arange(len(ids)) / 10,
        heard=torch.tensor(times),
    )


def spread(text: str, start: float, end: float) -> list[float]:
    return np.linspace(start, end, len(text) + 2)[1:-1].tolist()


def window(seconds: float, start: float = 0.0, overlap: float = 0.0, speech=None) -> Window:
    size = round(seconds * RATE)
    mask = np.ones(size // 10 + 1, bool) if speech is None else speech
    samples = np.ones(size, np.float32)
    return Window(round(start * RATE), samples, mask, round(overlap * RATE))


def judged(found: Hypothesis, seconds: float, speech=None) -> Judgement:
    return judge(found, centres(found, FRAME), window(seconds, speech=speech), RATE)


# --- judging --------------------------------------------------------------------------------


def test_centres_are_medians():
    alignment = torch.zeros(3, 2, 10)
    alignment[0, :, 4] = 1.0
    alignment[1, 0, 2:7] = 0.2
    alignment[1, 1, 4] = 1.0
    alignment[2, :, 0], alignment[2, :, 9] = 0.3, 0.7  # a far frame with little weight
    found = Hypothesis("AB", 0.0, True, alignment, torch.tensor([4, 5, EOS]), torch.zeros(3))
    np.testing.assert_allclose(centres(found, 0.1), [0.45, 0.45, 0.95], atol=1e-6)
    nothing = Hypothesis("", 0.0, False, alignment[:0], torch.zeros(0), torch.zeros(0))
    assert centres(nothing, 0.1).shape == (0,)


def test_a_good_window():
    text = "THE CAT SAT ON THE MAT"
    found = judged(hypothesis(text, spread(text, 0, 3), 3.0), 3.0)
    assert found.good and found.doubt == 0
    assert found.finished and found.repeats == 1 and found.back == 0
    assert found.skipped < 0.3


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("A", 1),
        ("A B C", 1),
        ("A A A", 3),
        ("A B A B A", 2),
        ("X A B A B A B Y", 3),
        ("FIVE FIVE TWO TWO", 2),
    ],
)
def test_repeats(text, count):
    assert repeats(text.split()) == count


def test_loops():
    text = "ON THE MAT " * 8
    found = judged(hypothesis(text, spread(text, 0, 5), 5.0), 5.0)
    assert found.looped and found.compression > stitching.MAX_COMPRESSION and found.repeats == 8
    assert found.doubt == 5.0
    # Short enough for zlib, too often for anyone.
    text = "GO GO GO GO GO"
    found = judged(hypothesis(text, spread(text, 0, 2), 2.0), 2.0)
    assert found.looped and found.compression < stitching.MAX_COMPRESSION
    text = "ONE TWO"
    assert judged(hypothesis(text, spread(text, 0, 1), 1.0, finished=False), 1.0).looped


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (1.5, 3.5), (0.7, 3.5)])
def test_an_early_stop_a_late_start_and_a_gap(start, end):
    text = "THE CAT SAT ON THE MAT"
    times = spread(text, start, end)
    if start == 0.7:
        times = [*spread(text[:11], 0.0, 1.2), *spread(text[11:], 2.3, 3.5)]
    found = judged(hypothesis(text, times, 3.5), 3.5)
    assert not found.good and not found.looped
    assert 1.0 < found.skipped < 1.7
    assert found.doubt == found.skipped
    # Where there is no speech there is nothing to write.
    speech = np.zeros(351, bool)
    for time in times:
        speech[int(100 * time) : int(100 * time) + 15] = True
    assert judged(hypothesis(text, times, 3.5), 3.5, speech).good


def test_nothing_written_of_speech():
    found = judged(hypothesis("", [], 2.0), 2.0)
    assert found.skipped == pytest.approx(2.0, abs=0.02) and found.doubt == pytest.approx(2.0, 0.02)
    assert judged(hypothesis("", [], 2.0), 2.0, np.zeros(201, bool)).good


def test_attention_that_goes_back():
    text = "THE CAT THE CAT"
    times = [*spread("THE CAT", 0, 3), 3.0, *spread("THE CAT", 0, 3)]
    found = judged(hypothesis(text, times, 3.2), 3.2)
    assert not found.good and 1.1 < found.back < 2.0
    assert found.doubt == found.back
    # A letter or a space may look anywhere.
    times = spread(text, 0, 2)
    times[3], times[13] = 2.0, 0.0
    assert judged(hypothesis(text, times, 2.0), 2.0).good


def test_without_attention_only_the_text_is_judged():
    text = "THE CAT"
    found = hypothesis(text, spread(text, 0, 0.03), 0.03)
    assert found.alignment.shape[-1] == 1
    assert judged(found, 5.0).good


# --- halves ---------------------------------------------------------------------------------

CONFIG = WindowConfig(max_seconds=8.0, target_seconds=4.0, min_seconds=1.0, overlap_seconds=1.0)


def cut(whole: Window) -> list[Window]:
    return halves(whole, levels(whole.samples, RATE), RATE, CONFIG)


def test_halves_meet_in_the_longest_silence_inside():
    speech = np.ones(601, bool)
    speech[20:100] = speech[250:262] = speech[330:350] = False
    first, second = cut(window(6.0, start=10.0, overlap=0.5, speech=speech))
    assert (first.start, first.end) == (10_000, 13_400)
    assert (second.start, second.end) == (13_400, 16_000)
    assert (first.overlap, second.overlap) == (500, 0)
    assert abs(len(first.speech) - 340) <= 1 and abs(len(second.speech) - 261) <= 1


def test_halves_overlap_where_there_is_no_silence():
    whole = window(6.0, start=10.0)
    whole.samples[2950:3050] = 0.1
    first, second = cut(whole)
    assert first.start == 10_000 and second.end == 16_000
    assert second.overlap == first.end - second.start == pytest.approx(1000, abs=20)
    assert second.start < 13_000 < first.end


def test_halves_are_not_too_short():
    assert cut(window(1.9)) == []
    assert len(cut(window(2.1))) == 2
    assert cut(window(2.1, overlap=1.5)) == []  # the overlap belongs to the first half


@given(seconds=st.floats(0.3, 20.0), overlap=st.floats(0.0, 1.5), seed=st.integers(0, 99))
def test_halves_cover_the_whole(seconds, overlap, seed):
    size = round(seconds * 100) + 1
    speech = np.repeat(np.random.default_rng(seed).random(size // 9 + 1) < 0.7, 9)[:size]
    whole = window(seconds, 3.0, min(overlap, seconds / 2), speech)
    parts = cut(whole)
    if not parts:
        assert seconds < 2 * CONFIG.min_seconds + overlap or seconds < 2.1
        return
    first, second = parts
    assert first.start == whole.start and second.end == whole.end
    assert second.overlap == first.end - second.start >= 0
    assert first.overlap == whole.overlap <= len(first.samples)
    assert max(len(first.samples), len(second.samples)) < len(whole.samples)


# --- stitching ------------------------------------------------------------------------------

spoken_words = st.lists(
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


def heard(words, start: float, end: float, random) -> list[Spoken]:
    """What a window has of the words: parts of words at its edges, times that are a little off."""
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
            found.append(Spoken(word, time))
    return found


@given(words=spoken_words, place=st.floats(0.0, 1.0), seed=st.integers(0, 10**6))
def test_no_word_is_lost_or_doubled(words, place, seed):
    words = timed(words)
    start = place * words[-1][2]
    end = start + 2.0
    random = np.random.default_rng(seed)
    before, after = heard(words, -1.0, end, random), heard(words, start, 1e9, random)
    kept, first = seam(before, after, start, end)
    assert 0 <= kept <= len(before) and 0 <= first <= len(after)
    joined = [w.text for w in before[:kept] + after[first:]]
    assert joined == [word for word, *_ in words]


@given(words=spoken_words, seed=st.integers(0, 10**6), share=st.floats(0.0, 0.3))
def test_misread_words_keep_the_number_of_words(words, seed, share):
    # Where the same word follows itself and is misread once, nobody could tell which it was.
    words = [(word + "BDFGHJKL"[i % 8], *rest) for i, (word, *rest) in enumerate(words)]
    words = timed(words)
    start = 0.4 * words[-1][2]
    random = np.random.default_rng(seed)

    def misread(found):
        return [Spoken("X" + w.text[1:], w.time) if random.random() < share else w for w in found]

    before = misread(heard(words, -1.0, start + 2.0, random))
    after = misread(heard(words, start, 1e9, random))
    kept, first = seam(before, after, start, start + 2.0)
    joined = [w.text for w in before[:kept] + after[first:]]
    assert len(joined) == len(words)
    for text, (word, *_) in zip(joined, words, strict=True):
        assert text[1:] == word[1:]


def test_a_seam_without_a_common_word_is_in_a_pause():
    before = [Spoken("A", 0.5), Spoken("B", 1.3), Spoken("C", 1.75)]
    after = [Spoken("P", 1.35), Spoken("Q", 1.85), Spoken("R", 2.4)]
    assert seam(before, after, 1.0, 2.0) == (2, 1)
    assert seam([], after, 1.0, 2.0) == (0, 0) or seam([], after, 1.0, 2.0)[0] == 0
    assert seam(before, [], 1.0, 2.0)[1] == 0
    assert seam([], [], 1.0, 2.0) == (0, 0)


def piece(text: str, start: float, seconds: float, overlap: float, times: list[float]) -> Piece:
    found = hypothesis(text, times, seconds)
    here = window(seconds, start, overlap)
    heard_at = centres(found, FRAME)
    return Piece(here, [found, found], heard_at, judge(found, heard_at, here, RATE))


def test_stitched_pieces_are_trimmed_in_all_their_parts():
    gap = [0.0]  # where spaces look does not matter
    times = [*spread("ONE", 0, 0.8), *gap, *spread("TWO", 1, 1.8), *gap, *spread("THREE", 2.2, 2.8)]
    left = piece("ONE TWO THREE FO", 0.0, 3.8, 0.0, [*times, *gap, *spread("FO", 3.5, 3.8)])
    times = [*spread("EE", 0.05, 0.3), *gap, *spread("FOUR", 1, 1.5), *gap, *spread("FIVE", 2, 2.5)]
    right = piece("EE FOUR FIVE", 2.5, 2.7, 1.3, times)
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
            centres(found, FRAME), trimmed.centres
        )  # rows belong to their ids
        rows = found.heard.numpy() / FRAME - (
            trimmed.centres / FRAME - 0.5
        )  # letters, each in its frame
        assert all(-0.01 <= row < 1.01 for row in rows[:-1].tolist())
        assert size < len(whole.hypotheses[0].ids)
        assert trimmed.window is whole.window


def test_pieces_that_do_not_overlap_stay_as_they_are():
    left = piece("ONE TWO", 0.0, 2.0, 0.0, spread("ONE TWO", 0.0, 2.0))
    right = piece("TWO", 2.0, 2.0, 0.0, spread("TWO", 0.0, 2.0))
    assert stitch(left, right, RATE) == (left, right)


def test_everything_may_belong_to_one_side():
    left = piece("ONE TWO", 0.0, 4.0, 0.0, spread("ONE TWO", 0.0, 4.0))
    right = piece("TWO", 3.0, 1.5, 1.0, spread("TWO", 0.1, 0.2))
    before, after = stitch(left, right, RATE)
    assert f"{before.hypotheses[0].text} {after.hypotheses[0].text}".split() == ["ONE", "TWO"]
    empty = piece("", 3.0, 1.5, 1.0, [])
    before, after = stitch(left, empty, RATE)
    assert after.hypotheses[0].text == ""
