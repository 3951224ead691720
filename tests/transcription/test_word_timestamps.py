"""Times and probabilities of words: right on good alignments, and sane on any."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.system import word_times
from las.audio import reader
from las.audio.activity import HOP_SECONDS
from las.decoding.hypothesis import Hypothesis
from las.explain.explainer import Explainer
from las.model.folder import bundled
from las.model.las import LAS
from las.text.characters import EOS, Characters
from las.transcription.chunking import ChunkingConfig
from las.transcription.segments import transcription
from las.transcription.transcriber import Transcriber
from las.transcription.word_timestamps import positions, timed_words, word_spans

FRAME = 0.04
TEXT = "AB CDE FG"
HEARD = [10, 12, 14, 16, 18, 20, 45, 50, 52]  # frames of its characters; a pause before FG


def hypothesis(text, attention, log_probs=None, finished=True):
    """Attention is [U, T] or [U, H, T], for the characters or for the end as well."""
    ids = Characters().encode(text) + [EOS] * finished
    attention = np.asarray(attention, dtype=np.float32)
    if attention.ndim == 2:
        attention = attention[:, None]
    if len(attention) < len(ids):  # the end attends to the beginning, as trained models do
        end = np.zeros_like(attention[:1])
        end[..., 0] = 1.0
        attention = np.concatenate([attention, end])
    if log_probs is None:
        log_probs = np.full(len(ids), -0.1)
    return Hypothesis(
        text,
        float(np.sum(log_probs, dtype=float)),
        finished,
        torch.from_numpy(attention),
        torch.tensor(ids),
        torch.tensor(log_probs, dtype=torch.float32),
    )


def peaks(frames, size=70, width=1.0):
    """Rows of attention around these frames."""
    distance = (np.arange(size)[None] - np.asarray(frames)[:, None]) / width
    rows = np.exp(-0.5 * distance**2)
    return rows / rows.sum(1, keepdims=True)


def times(words):
    return [[word.start, word.end] for word in words]


# Half a frame, and 80 ms before and after; AB and CDE touch.
EXPECTED = [[0.34, 0.55], [0.55, 0.90], [1.94, 2.18]]


def test_words_of_a_sharp_alignment():
    words = timed_words(hypothesis(TEXT, peaks(HEARD)), FRAME, 0.0)
    assert [word.word for word in words] == ["AB", "CDE", "FG"]
    np.testing.assert_allclose(times(words), EXPECTED, atol=0.05)


def test_the_offset_is_added():
    whole = hypothesis(TEXT, peaks(HEARD))
    here, there = timed_words(whole, FRAME, 0.0), timed_words(whole, FRAME, 100.0)
    np.testing.assert_allclose(np.array(times(there)) - 100.0, times(here), atol=1e-9)


@pytest.mark.parametrize("blurred", ["evenly", "first frame", "last frame"])
def test_rows_that_say_nothing_are_placed_by_their_neighbours(blurred):
    rows = peaks(HEARD)
    row = {
        "evenly": np.full(70, 1 / 70),
        "first frame": np.eye(70)[0],
        "last frame": np.eye(70)[69],
    }[blurred]
    for index in (1, 2, 4, 6):
        rows[index] = row
    words = timed_words(hypothesis(TEXT, rows), FRAME, 0.0)
    np.testing.assert_allclose(times(words), EXPECTED, atol=0.12)


def test_heads_are_averaged():
    rows = peaks(HEARD)
    left, right = rows.copy(), rows.copy()
    left[3:], right[:3] = 1 / 70, 1 / 70
    both = timed_words(hypothesis(TEXT, np.stack([left, right], 1)), FRAME, 0.0)
    mean = timed_words(hypothesis(TEXT, (left + right) / 2), FRAME, 0.0)
    np.testing.assert_allclose(times(both), times(mean), atol=1e-6)
    np.testing.assert_allclose(times(both), EXPECTED, atol=0.12)


def test_probability_is_the_geometric_mean_with_what_ends_the_word():
    log_probs = [-0.1, -0.2, -0.6, -0.4, -0.1, -0.1, -1.0, -0.3, -0.3]
    ended = timed_words(hypothesis(TEXT, peaks(HEARD), [*log_probs, -0.9]), FRAME, 0.0)
    expected = np.exp([-0.3, -0.4, -0.5])
    np.testing.assert_allclose([word.probability for word in ended], expected, atol=1e-6)
    cut = timed_words(hypothesis(TEXT, peaks(HEARD), log_probs, finished=False), FRAME, 0.0)
    np.testing.assert_allclose(cut[2].probability, np.exp(-0.3), atol=1e-6)


def test_no_text_no_words():
    assert timed_words(hypothesis("", np.ones((1, 5)) / 5), FRAME, 0.0) == []
    assert timed_words(hypothesis("  ", np.ones((2, 5)) / 5), FRAME, 0.0) == []


def test_dropped_alignments_are_an_error():
    with pytest.raises(ValueError, match="frames"):
        timed_words(hypothesis("AB", np.ones((3, 0))), FRAME, 0.0)


def test_without_an_alignment_words_are_spread_evenly():
    words = timed_words(hypothesis("AB CD", np.ones((5, 1))), 10.0, 0.0)
    assert words[0].end < 5.0 < words[1].start
    assert words[1].start - words[0].end > 2.0


texts = st.text(" AB", min_size=1, max_size=12)
values = st.floats(width=32) | st.floats(0, 1, width=32)


@given(st.data(), texts, st.booleans(), st.floats(0.01, 20.0), st.floats(0, 1e4))
def test_any_alignment_gives_times_in_order_and_in_range(data, text, finished, frame, offset):
    shape = (len(text) + finished, data.draw(st.integers(1, 2)), data.draw(st.integers(1, 30)))
    attention = data.draw(hnp.arrays(np.float32, shape, elements=values))
    log_probs = data.draw(hnp.arrays(np.float32, shape[0], elements=st.floats(width=32)))
    words = timed_words(hypothesis(text, attention, log_probs, finished), frame, offset)
    assert [word.word for word in words] == text.split()
    flat = [time for pair in times(words) for time in pair]
    assert flat == sorted(flat)
    assert all(offset <= time <= (offset + shape[2] * frame) * (1 + 1e-12) for time in flat)
    assert all(0.0 <= word.probability <= 1.0 for word in words)


@given(
    st.lists(st.integers(1, 8), min_size=2, max_size=40),
    st.integers(0, 2**32 - 1),
    st.floats(0.0, 0.7),
)
def test_sharp_rows_are_found_whatever_the_others_say(steps, seed, share):
    """Random rows among sharp ones, and ends of pauses: sharp characters stay within 0.1 s."""
    frames = np.cumsum(steps)
    random = np.random.default_rng(seed)
    rows = peaks(frames, frames[-1] + 9, width=0.5)
    wrong = random.random(len(frames)) < share
    wrong[[0, -1]] = False
    rows[wrong] = random.dirichlet(np.ones(rows.shape[1]), int(wrong.sum()))
    found = positions(rows, FRAME, steps > np.array(3))
    assert (np.diff(found) >= 0).all()
    np.testing.assert_allclose(found[~wrong], frames[~wrong] + 0.5, atol=2.5)


@given(texts)
def test_spans_are_the_words(text):
    assert [text[a:b] for a, b in word_spans(text)] == text.split()


def sounds(places, seconds=2.8):
    """Whether there is sound every 5 ms, from these starts to these ends."""
    hops = np.arange(round(seconds / HOP_SECONDS)) * HOP_SECONDS
    return torch.tensor([any(a <= hop < b for a, b in places) for hop in hops + 1e-9])


SOUND = [(0.5, 0.7), (0.75, 0.96), (1.7, 2.05), (2.1, 2.3)]  # pauses of 50 ms are none


@pytest.mark.parametrize("by_ctc", [True, False])
def test_next_to_a_pause_words_begin_and_end_where_the_sound_does(by_ctc):
    found = hypothesis(TEXT, peaks(HEARD))
    if by_ctc:  # and attention is wrong
        centres = torch.tensor([*HEARD, HEARD[-1]]) * FRAME
        found = replace(found, alignment=torch.ones(10, 1, 70), ctc_times=centres)
    words = timed_words(replace(found, activity=sounds(SOUND)), FRAME, 0.0)
    edges = [words[0].start, words[1].end, words[2].start, words[2].end]
    np.testing.assert_allclose(edges, [0.5, 0.96, 1.7, 2.3], atol=1e-9)
    # AB and CDE touch somewhere between their characters.
    assert 0.48 <= words[0].end <= words[1].start <= 0.7


def test_silences_too_short_to_be_pauses_count_between_words_and_at_the_edges():
    found = replace(
        hypothesis("AB CD", peaks([4, 6, 9, 12, 15], 20)), alignment=torch.ones(6, 1, 20)
    )
    found = replace(found, ctc_times=torch.tensor([4.0, 6, 9, 12, 15, 15]) * FRAME)
    # In order: before AB, within it, twice between AB and CD, within CD, and behind.
    places = [(0.05, 0.18), (0.22, 0.3), (0.31, 0.36), (0.42, 0.5), (0.56, 0.75)]
    words = timed_words(replace(found, activity=sounds(places, 0.8)), FRAME, 0.0)
    np.testing.assert_allclose(times(words), [[0.05, 0.36], [0.42, 0.75]], atol=1e-9)


def test_characters_before_their_sound_do_not_begin_there():
    """As a listener does that hears both ways; even a word that lies in the pause altogether."""
    early = torch.tensor([8.0, 10, 14, 16, 18, 20, 34, 36, 38, 38]) * FRAME
    found = replace(hypothesis(TEXT, peaks(HEARD)), ctc_times=early, activity=sounds(SOUND))
    words = timed_words(found, FRAME, 0.0)
    assert (words[0].start, words[2].start) == pytest.approx((0.5, 1.7))
    none = replace(found, ctc_times=torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 20, 22, 22]) * FRAME)
    assert min(word.start for word in timed_words(none, FRAME, 0.0)) == pytest.approx(0.5)


def test_far_pauses_are_of_other_words():
    """Where an overlap of chunks was trimmed, or words were missed, the next pause may be far."""
    one = hypothesis("AB", peaks([40, 42]))
    words = timed_words(replace(one, activity=sounds([(0.4, 2.6)])), FRAME, 0.0)
    np.testing.assert_allclose(times(words), [[1.6, 1.8]], atol=0.1)


@given(
    texts,
    st.lists(st.booleans(), min_size=1, max_size=300),
    st.lists(st.floats(0, 2), min_size=13, max_size=13),
)
def test_any_sound_gives_times_in_order_and_in_range(text, sound, places):
    ctc_times = torch.tensor(sorted(places[: len(text) + 1]))
    found = hypothesis(text, np.ones((len(text) + 1, 30)) / 30)
    found = replace(found, ctc_times=ctc_times, activity=torch.tensor(sound).repeat_interleave(10))
    words = timed_words(found, FRAME, 7.0)
    assert [word.word for word in words] == text.split()
    flat = [time for pair in times(words) for time in pair]
    assert flat == sorted(flat)
    assert all(7.0 <= time <= 7.0 + 30 * FRAME + 1e-9 for time in flat)


@pytest.fixture(scope="module")
def bundled_model():
    return LAS.from_pretrained()


def test_times_of_joined_samples_are_right_and_the_same_in_any_batch(bundled_model):
    """The limits that benchmarks.system.word_times measures, on what ships, joined with pauses."""
    folder = bundled().parent / "samples"
    with (folder / "references.tsv").open(encoding="utf-8", newline="") as file:
        texts = dict(csv.reader(file, delimiter="\t"))
    parts = [(text, word_times.sound(reader.load(folder / name))) for name, text in texts.items()]
    random = np.random.default_rng(0)
    made = [
        word_times.joined(parts, word_times.PAUSE, 50.0, random),
        word_times.joined(parts[::3], word_times.PAUSE, None, random),
    ]
    limits = ChunkingConfig(max_seconds=10.0, target_seconds=4.0)
    transcriber = Transcriber(
        bundled_model, torch.device("cpu"), chunking=limits, timer=timed_words
    )
    waveforms = [each.samples for each in made]
    transcripts = transcriber.arrays(waveforms)
    assert [len(each.chunks) > 1 for each in transcripts] == [True, False]
    found = [transcription(each) for each in transcripts]
    late = [
        e for each, result in zip(made, found, strict=True) for e in word_times.errors(each, result)
    ]
    assert len(late) >= 6
    starts, ends = 1000 * np.array(late).T
    assert np.median(np.abs(starts)) <= 50 and np.median(np.abs(ends)) <= 50
    assert abs(np.median(starts)) <= 20 and abs(np.median(ends)) <= 20
    assert starts.min() >= -10
    alone = [transcription(transcriber.arrays([w], batch_size=1)[0]) for w in waveforms]
    for both in zip(found, alone, strict=True):
        one, other = ([word for s in each.segments for word in s.words] for each in both)
        assert times(one) == times(other)
    explained = Explainer(bundled_model, torch.device("cpu")).array(waveforms[1])
    words = [word for section in explained.sections for word in section.words]
    kept = [word for segment in found[1].segments for word in segment.words]
    np.testing.assert_allclose(times(words), times(kept), atol=0.001)


def test_silence_before_the_speech_shifts_the_words(bundled_model):
    """The bundled model on a recording that ships."""
    waveform = reader.load(bundled().parent / "samples" / "503-1-0004.flac")
    noise = 1e-4 * np.random.default_rng(0).normal(size=4000).astype(np.float32)
    transcriber = Transcriber(bundled_model, torch.device("cpu"), timer=timed_words)
    early, late = transcriber.arrays([waveform, np.concatenate([noise, waveform])])
    assert early.text == late.text != ""
    first, second = early.chunks[0].words, late.chunks[0].words
    shift = np.array(times(second)) - np.array(times(first))
    assert abs(np.median(shift) - 0.25) < 0.06
    assert first[0].start < 0.25 and early.seconds - 0.4 < first[-1].end <= early.seconds + 0.04
