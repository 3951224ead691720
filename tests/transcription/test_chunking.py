"""Chunks cover all speech, cut in silences, and do not depend on how samples come in blocks."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.audio.levels import levels, runs
from las.config import ModelConfig
from las.transcription.chunking import Chunk, ChunkingConfig, halves, split, threshold

RATE = 8000
CONFIG = ChunkingConfig(max_seconds=4.0, target_seconds=2.0, min_seconds=0.8, overlap_seconds=1.0)


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Speech-like: noise whose level swings by 20 dB four times a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(size=len(time))
    return 0.1 * noise * 10 ** (np.sin(8 * np.pi * time) - 1) ** 1


def hush(seconds: float, seed: int = 0) -> np.ndarray:
    return 1e-4 * np.random.default_rng(seed).normal(size=round(seconds * RATE))


def joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts).astype(np.float32)


def cut(samples: np.ndarray, config: ChunkingConfig = CONFIG) -> list[Chunk]:
    found = list(split([samples], RATE, config))
    for chunk in found:
        np.testing.assert_array_equal(chunk.samples, samples[chunk.start : chunk.end])
        assert len(chunk.samples) <= config.max_seconds * RATE
        assert abs(len(chunk.speech) - len(chunk.samples) / RATE * 100) < 1.01
    return found


def check_overlaps(found: list[Chunk]) -> None:
    """Overlaps are what they say, and chunks are in order."""
    for a, b in itertools.pairwise(found):
        assert a.start < b.start
        assert a.end < b.end
        assert b.overlap == max(0, a.end - b.start)
        assert a.overlapped or not b.overlap
    assert not found or found[0].overlap == 0


def test_short_audio_is_one_chunk_as_it_is():
    samples = joined(hush(1), sound(2), hush(1))
    (chunk,) = cut(samples)
    assert (chunk.start, chunk.end, chunk.overlap) == (0, len(samples), 0)
    assert 1.7 < chunk.speech.sum() / 100 < 2.1
    assert len(cut(joined(samples, hush(0.01)))) == 1
    assert cut(joined(samples, hush(0.01)))[0].start > 0  # longer: silence is left out


def test_cuts_are_in_silences():
    sizes = [1.5, 2.5, 1.0, 1.2, 3.0, 0.9]
    samples = joined(*(x for i, size in enumerate(sizes) for x in (sound(size, i), hush(0.5, i))))
    found = cut(samples)
    starts = np.cumsum([0.0, *(size + 0.5 for size in sizes[:-1])])
    ends = starts + sizes
    assert [w.overlap for w in found] == [0] * len(found)
    assert not any(w.overlapped for w in found)
    for chunk in found:
        # Margins of silence, no part of an utterance.
        assert min(abs(starts - 0.2 - chunk.start / RATE)) < 0.1 or chunk.start == 0
        assert min(abs(ends + 0.2 - chunk.end / RATE)) < 0.1
    # Short utterances share a chunk, as long as the target is not reached.
    assert len(found) < len(sizes)
    assert sum(w.speech.sum() for w in found) / 100 == pytest.approx(sum(sizes), rel=0.15)


def test_the_next_silence_after_the_target_ends_a_chunk():
    samples = joined(sound(1.0), hush(0.5), sound(1.0), hush(0.3), sound(1.0), hush(1), sound(2))
    first = cut(samples)[0]
    assert first.end / RATE == pytest.approx(2.5 + 0.15, abs=0.06)  # half of 0.3: no margin of 0.2


def test_without_a_late_silence_the_longest_counts():
    samples = joined(sound(0.9), hush(0.3), sound(0.3), hush(0.45), sound(4))
    first, *rest = cut(samples)
    assert first.end / RATE == pytest.approx(1.5 + 0.2, abs=0.06)
    assert rest[0].overlap == 0


def test_without_silence_chunks_overlap():
    samples = sound(14.0).astype(np.float32)
    found = cut(samples)
    check_overlaps(found)
    assert found[0].start == 0
    assert found[-1].end == len(samples)
    assert [w.overlapped for w in found] == [True] * (len(found) - 1) + [False]
    for chunk in found[1:]:
        assert 0.5 <= chunk.overlap / RATE <= 1.5
    # Edges are where it is quiet: the swing is lowest at 3/16 s, and every quarter of a second.
    for chunk in found[:-1]:
        phase = (chunk.end / RATE - 3 / 16) % 0.25
        assert min(phase, 0.25 - phase) < 0.06


def test_long_silences_are_left_out():
    samples = joined(hush(9), sound(3), hush(11, 1), sound(3), hush(6))
    first, second = cut(samples)
    assert first.start / RATE == pytest.approx(9 - 0.2, abs=0.06)
    assert first.end / RATE == pytest.approx(12 + 0.2, abs=0.06)
    assert second.start / RATE == pytest.approx(23 - 0.2, abs=0.06)
    assert second.end / RATE == pytest.approx(26 + 0.2, abs=0.06)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 4.0, 4.01, 30.0])
def test_silence_and_noise_give_no_window(seconds):
    size = round(seconds * RATE)
    assert cut(np.zeros(size, np.float32)) == []
    assert cut((1e-5 * np.random.default_rng(0).normal(size=size)).astype(np.float32)) == []
    if seconds > 4:
        noise = 0.01 * np.random.default_rng(0).normal(size=size)
        assert cut(noise.astype(np.float32)) == []
        hum = 0.1 * np.sin(2 * np.pi * 50 * np.arange(size) / RATE)
        assert cut(hum.astype(np.float32)) == []


def test_speech_in_noise_is_found():
    noise = 0.02 * np.random.default_rng(1).normal(size=12 * RATE)
    samples = noise.copy()
    samples[3 * RATE : 5 * RATE] += sound(2)
    samples[8 * RATE : 10 * RATE] += sound(2, 1)
    found = cut(samples.astype(np.float32))
    for start, end in ((3, 5), (8, 10)):
        assert any(w.start <= start * RATE and w.end >= (end - 0.1) * RATE for w in found)


@given(
    parts=st.lists(
        st.tuples(st.booleans(), st.floats(0.05, 5.0), st.integers(0, 9)), min_size=1, max_size=8
    ),
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=5),
)
def test_all_speech_is_in_a_chunk_whatever_the_blocks(parts, sizes):
    samples = joined(*((sound if loud else hush)(length, seed) for loud, length, seed in parts))
    found = cut(samples)
    check_overlaps(found)
    edges = np.cumsum(list(itertools.islice(itertools.cycle(sizes), 2000)))
    again = list(split(np.split(samples, edges[edges < len(samples)]), RATE, CONFIG))
    assert [(w.start, w.end, w.overlap) for w in again] == [
        (w.start, w.end, w.overlap) for w in found
    ]
    edge = np.zeros(len(samples) + 1, bool)
    for chunk in found:
        edge[chunk.start : chunk.end] = True
    lost = (levels(samples, RATE) > -45.0) & ~edge[:: RATE // 100]
    assert all(b - a <= 5 for a, b in runs(lost))


def test_memory_is_that_of_a_chunk():
    held = []

    def blocks():
        for i in range(200):
            yield sound(1.0, i % 7).astype(np.float32)

    import tracemalloc

    def peak(count: int) -> int:
        tracemalloc.start()
        for chunk in split(itertools.islice(blocks(), count), RATE, CONFIG):
            held.append(chunk.end)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    assert peak(200) < 1.1 * peak(20)


def test_thresholds():
    even = np.full(200, -30.0)
    assert threshold(even, CONFIG) > -30.0
    assert threshold(even, CONFIG, steady=False) < -30.0
    assert threshold(even[:50], CONFIG) < -30.0  # too short to tell
    assert threshold(even - 50.0, CONFIG, steady=False) == CONFIG.silent_dbfs
    clean = np.where(np.arange(200) % 20 < 10, -10.0, -90.0)
    assert threshold(clean, CONFIG) == -45.0
    noisy = np.where(np.arange(200) % 20 < 10, -10.0, -30.0)
    assert threshold(noisy, CONFIG) == -24.0
    assert threshold(np.where(noisy < -20, -18.0, noisy), CONFIG) == -22.0


def test_noise_at_the_end_is_no_window():
    noise = 0.003 * np.random.default_rng(0).normal(size=10 * RATE)
    samples = joined(sound(3.0), hush(0.5), sound(2.9), hush(1.1))
    samples = samples + noise[: len(samples)]
    assert [round(w.end / RATE, 1) for w in cut(samples.astype(np.float32))] == [3.2, 6.6]


def test_settings():
    assert ChunkingConfig.for_model(ModelConfig()) == ChunkingConfig()
    for seconds in (1.0, 3.0, 10.0, 35.0):
        limits = ChunkingConfig.for_model(ModelConfig(longest_seconds=seconds))
        assert limits.max_seconds == seconds
    for wrong in (
        {"overlap_seconds": 11.0},
        {"target_seconds": 21.0},
        {"min_seconds": 7.0},
        {"max_seconds": 0.0},
    ):
        with pytest.raises(ValueError, match=r"seconds"):
            ChunkingConfig(**wrong)


# --- halves of a chunk that was not decoded well ---------------------------------------------

HALVES = ChunkingConfig(max_seconds=8.0, target_seconds=4.0, min_seconds=1.0, overlap_seconds=1.0)


HALF_RATE = 1000


def whole_chunk(seconds: float, start: float = 0.0, overlap: float = 0.0, speech=None) -> Chunk:
    size = round(seconds * HALF_RATE)
    mask = np.ones(size // 10 + 1, bool) if speech is None else speech
    samples = np.ones(size, np.float32)
    return Chunk(round(start * HALF_RATE), samples, mask, round(overlap * HALF_RATE))


def in_half(whole: Chunk) -> list[Chunk]:
    return halves(whole, HALF_RATE, HALVES)


def test_halves_meet_in_the_longest_silence_inside():
    speech = np.ones(601, bool)
    speech[20:100] = speech[250:262] = speech[330:350] = False
    first, second = in_half(whole_chunk(6.0, start=10.0, overlap=0.5, speech=speech))
    assert (first.start, first.end) == (10_000, 13_400)
    assert (second.start, second.end) == (13_400, 16_000)
    assert (first.overlap, second.overlap) == (500, 0)
    assert abs(len(first.speech) - 340) <= 1 and abs(len(second.speech) - 261) <= 1


def test_halves_overlap_where_there_is_no_silence():
    whole = whole_chunk(6.0, start=10.0)
    whole.samples[2950:3050] = 0.1
    first, second = in_half(whole)
    assert first.start == 10_000 and second.end == 16_000
    assert second.overlap == first.end - second.start == pytest.approx(1000, abs=20)
    assert second.start < 13_000 < first.end


def test_halves_are_not_too_short():
    assert in_half(whole_chunk(1.9)) == []
    assert len(in_half(whole_chunk(2.1))) == 2
    assert in_half(whole_chunk(2.1, overlap=1.5)) == []  # the overlap belongs to the first half


@given(seconds=st.floats(0.3, 20.0), overlap=st.floats(0.0, 1.5), seed=st.integers(0, 99))
def test_halves_cover_the_whole(seconds, overlap, seed):
    size = round(seconds * 100) + 1
    speech = np.repeat(np.random.default_rng(seed).random(size // 9 + 1) < 0.7, 9)[:size]
    whole = whole_chunk(seconds, 3.0, min(overlap, seconds / 2), speech)
    whole = replace(whole, overlapped=bool(seed % 2))
    parts = in_half(whole)
    if not parts:
        assert seconds < 2 * HALVES.min_seconds + overlap or seconds < 2.1
        return
    first, second = parts
    assert first.start == whole.start and second.end == whole.end
    assert second.overlap == first.end - second.start >= 0
    assert first.overlap == whole.overlap <= len(first.samples)
    assert (first.overlapped, second.overlapped) == (second.overlap > 0, whole.overlapped)
    assert max(len(first.samples), len(second.samples)) < len(whole.samples)
