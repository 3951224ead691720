"""Files become texts; neither their order nor their neighbours nor bad files among them matter.

The model is random: what it writes is no language, but the same sounds always give the same.
"""

import io
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speech import RATE, sentences, small_model, whistle, write_folder

from las.audio import reader, stream
from las.config import SearchConfig
from las.transcription import quality
from las.transcription import transcriber as transcribe
from las.transcription.chunking import ChunkingConfig
from las.transcription.transcriber import Transcriber
from las.transcription.transcript import Failure, Reading, Transcript
from las.transcription.types import Word

SECONDS = (0.1, 120.0)


@pytest.fixture(scope="module")
def transcriber():
    return Transcriber(small_model().train(), torch.device("cpu"), keep_alignments=True)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("files"), sentences(8, seed=3))
    return sorted(folder.rglob("*.wav"))


@pytest.fixture(scope="module")
def single(transcriber, paths):
    """Each file alone."""
    found = {path: next(iter(transcriber.files([path]))) for path in paths}
    assert all(isinstance(result, Transcript) for result in found.values())
    assert len({result.text for result in found.values()}) > 1
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), seconds=st.floats(*SECONDS))
def test_neighbours_and_order_change_nothing(transcriber, paths, single, data, seconds):
    order = data.draw(st.lists(st.sampled_from(paths), min_size=1, max_size=10))
    found = list(transcriber.files(order, batch_seconds=seconds))
    assert [result.path for result in found] == order
    for result in found:
        alone = single[result.path]
        assert result.text == alone.text
        (a,), (b,) = result.chunks[0].hypotheses, alone.chunks[0].hypotheses
        assert a.score == pytest.approx(b.score, abs=1e-3)
        torch.testing.assert_close(a.alignment, b.alignment, atol=1e-4, rtol=1e-3)


def test_batches_hold_no_more_than_asked(transcriber, paths, monkeypatch):
    sizes = []
    n_best = transcriber.n_best

    def noted(batch):
        sizes.append((len(batch), max(map(len, batch)) / RATE))
        return n_best(batch)

    monkeypatch.setattr(transcriber, "n_best", noted)
    list(transcriber.files(paths, batch_seconds=4.0))
    assert sum(count for count, _ in sizes) == len(paths)
    assert all(count == 1 or count * longest <= 4.0 for count, longest in sizes)
    assert max(count for count, _ in sizes) > 1


def test_bad_files_among_good_ones(transcriber, paths, single, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("a text\n" * 100)
    missing = tmp_path / "missing.wav"
    for seconds in SECONDS:
        order = [missing, paths[0], text, paths[1], tmp_path]
        found = list(transcriber.files(order, batch_seconds=seconds))
        assert [result.path for result in found] == order
        assert [type(result) for result in found] == [
            Failure,
            Transcript,
            Failure,
            Transcript,
            Failure,
        ]
        assert [found[1].text, found[3].text] == [single[paths[0]].text, single[paths[1]].text]
        for result in found[::2]:
            assert result.reason.startswith(str(result.path))
            assert len(result.reason.splitlines()) == 1


def test_nothing_and_nothing_but_failures(transcriber, tmp_path):
    assert list(transcriber.files([])) == []
    assert [type(r) for r in transcriber.files([tmp_path, tmp_path])] == [Failure, Failure]


def test_what_a_transcript_tells(transcriber, tmp_path):
    path = tmp_path / "a.wav"
    samples = whistle("ABE CAB", rate=16000)
    soundfile.write(path, np.stack([samples, samples], 1), 16000)
    (result,) = transcriber.files([path])
    waveform = reader.load(path, RATE)
    assert result.seconds == pytest.approx(len(samples) / 16000, abs=1e-3)
    (chunk,) = result.chunks
    assert (chunk.start, chunk.end) == (0, len(waveform))
    encoded = transcriber.model.encode(
        torch.from_numpy(waveform)[None], torch.tensor([len(waveform)])
    )
    (hypothesis,) = chunk.hypotheses
    assert hypothesis.alignment.shape[2] == int(encoded.memory.lengths)
    assert int(encoded.memory.lengths) * chunk.frame == pytest.approx(result.seconds, abs=0.05)
    assert len(chunk.centres) == len(hypothesis.ids) == len(hypothesis.log_probs)
    assert chunk.words is None
    assert hypothesis.text == transcriber.waveforms([waveform])[0].text


LIMITS = ChunkingConfig(max_seconds=3.0, target_seconds=1.5, min_seconds=0.6, overlap_seconds=0.5)


@pytest.fixture(scope="module")
def long_model():
    """A model whose random texts end sooner than at the limit of steps."""
    return small_model(seed=4)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Files of 1 to 15 s, with and without pauses, and one of silence."""
    folder = tmp_path_factory.mktemp("long")
    texts = sentences(24, seed=5)
    parts = [whistle(text, seed=i) for i, text in enumerate(texts)]
    pause = 0.002 * np.random.default_rng(0).normal(size=RATE // 2)
    sounds = {
        "short": parts[0],
        "pauses": np.concatenate([x for part in parts[:7] for x in (part, pause)]),
        "none": np.concatenate(parts[14:19]),
        "quiet": np.zeros(7 * RATE),
        "other": np.concatenate(parts[3:7]),
    }
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples.astype(np.float32), RATE, subtype="FLOAT")
    return [folder / f"{name}.wav" for name in sounds]


def told(transcript):
    """All that a transcript says, but for round-off."""
    return [
        (w.start, w.end, [h.text for h in w.hypotheses], w.hypotheses[0].ids.tolist())
        for w in transcript.chunks
    ]


def test_batches_change_nothing_in_long_audio(long_model, long):
    transcriber = Transcriber(long_model, torch.device("cpu"), chunking=LIMITS)
    single = [told(t) for p in long for t in transcriber.files([p], batch_size=1)]
    assert [len(chunks) > 1 for chunks in single] == [False, True, True, False, True]
    assert single[3] == []
    for settings_ in ({}, {"batch_size": 3, "batch_seconds": 7.0}):
        assert [told(t) for t in transcriber.files(long, **settings_)] == single
        again = list(transcriber.files(long[::-1], **settings_))[::-1]
        assert [told(t) for t in again] == single
    arrays = transcriber.arrays([reader.load(path, RATE) for path in long])
    assert [told(t) for t in arrays] == single
    assert [str(t.path) for t in arrays] == ["0", "1", "2", "3", "4"]
    assert [t.seconds for t in arrays] == [reader.info(path).duration for path in long]


def test_streams_and_blocks_are_as_good_as_files(long_model, long, monkeypatch):
    transcriber = Transcriber(long_model, torch.device("cpu"), chunking=LIMITS)
    expected = [told(t) for t in transcriber.files(long)]
    monkeypatch.setattr(stream, "BLOCK_SAMPLES", 777)
    found = list(transcriber.files([io.BytesIO(path.read_bytes()) for path in long]))
    assert [told(t) for t in found] == expected
    assert found[0].path.name == "<stream>"


def test_what_was_said_before_a_pause_does_not_wait_for_what_comes_after(long_model):
    words = [whistle(text, seed=i) for i, text in enumerate(sentences(2, seed=5))]
    pause = np.zeros(4 * RATE)  # more than a chunk
    heard = []

    class Live(Reading):
        def blocks(self, rate):
            for name, sound in (("first", words[0]), ("pause", pause), ("second", words[1])):
                heard.append(name)
                yield sound.astype(np.float32)

    transcriber = Transcriber(long_model, torch.device("cpu"), chunking=LIMITS)
    recording = transcriber.open(
        Live(Path("live"), np.zeros),
        lambda _path, chunk, _samples: heard.append(chunk.hypotheses[0].text),
    )
    while (chunk := recording.next_chunk()) is not None:
        transcriber.add(recording, chunk, transcriber.decode([chunk])[0])
    found = transcriber.result(recording)
    texts = [chunk.hypotheses[0].text for chunk in found.chunks]
    assert heard == ["first", "pause", texts[0], "second", texts[1]]
    (whole,) = transcriber.arrays([np.concatenate([words[0], pause, words[1]])])
    assert told(found) == told(whole)


def test_batches_are_limited(long_model, long, monkeypatch):
    transcriber = Transcriber(long_model, torch.device("cpu"), chunking=LIMITS)
    sizes = []
    n_best = transcriber.n_best

    def noted(batch):
        sizes.append((len(batch), max(map(len, batch)) / RATE))
        return n_best(batch)

    monkeypatch.setattr(transcriber, "n_best", noted)
    list(transcriber.files(long, batch_size=3, batch_seconds=7.0))
    assert all(count <= 3 and (count == 1 or count * most <= 7.0) for count, most in sizes)
    assert max(most for _, most in sizes) <= LIMITS.max_seconds
    assert max(count for count, _ in sizes) > 1


def test_progress_adds_up(long_model, long, tmp_path):
    transcriber = Transcriber(long_model, torch.device("cpu"), chunking=LIMITS)
    done = []
    broken = tmp_path / "broken.wav"
    broken.write_text("no audio")
    list(transcriber.files([*long, broken], progress=done.append, batch_size=2))
    assert done == sorted(done)
    assert len(done) > 5
    assert done[-1] == pytest.approx(sum(reader.info(path).duration for path in long))


def test_a_file_that_breaks_in_the_middle(long_model, long, tmp_path, monkeypatch):
    samples = reader.load(long[1], RATE)
    samples[-10] = np.nan
    bad = tmp_path / "bad.wav"
    soundfile.write(bad, samples, RATE, subtype="FLOAT")
    transcriber = Transcriber(long_model, torch.device("cpu"), chunking=LIMITS)
    expected = [told(t) for t in transcriber.files([long[0], long[2]])]
    monkeypatch.setattr(stream, "BLOCK_SAMPLES", 4000)
    for size in (1, 4, None):
        first, failure, last = transcriber.files([long[0], bad, long[2]], batch_size=size)
        assert [told(first), told(last)] == expected
        assert isinstance(failure, Failure)
        assert "NaN" in failure.reason


def test_nothing_is_decoded_of_silence(long_model, tmp_path, monkeypatch):
    transcriber = Transcriber(long_model, torch.device("cpu"), chunking=LIMITS)
    monkeypatch.setattr(transcriber, "n_best", lambda _: pytest.fail("decoded"))
    for seconds in (1, 30):
        (found,) = transcriber.arrays([np.zeros(seconds * RATE, np.float32)])
        assert (found.text, found.chunks, found.seconds) == ("", [], seconds)
        assert found.warnings == ["it is silent: all of its samples are 0"]
    noise = np.random.default_rng(0).normal(size=30 * RATE)
    for level, words in ((1e-4, "too quiet to be heard: its peak is at -6"), (0.1, "no speech")):
        (found,) = transcriber.arrays([level * noise])
        assert found.text == "" and words in found.warnings[0] and len(found.warnings) == 1


def test_heads_that_disagree_are_a_warning(long_model, monkeypatch):
    decoded = []

    def search(*arguments):
        decoded[:] = original(*arguments)
        return list(decoded)

    original = transcribe.search
    monkeypatch.setattr(transcribe, "search", search)
    sound, cpu = whistle("ABE CAB"), torch.device("cpu")
    config = SearchConfig(beam=2, ctc=0.3, max_steps=12)
    transcriber = Transcriber(long_model, cpu, config, chunking=LIMITS)
    for ctc, message in (("same", None), ("", "0% of it"), ("other " * 9, "0% of it")):
        monkeypatch.setattr(
            transcribe,
            "ctc_greedy",
            lambda *_, ctc=ctc: [few[0].text if ctc == "same" else ctc for few in decoded],
        )
        (found,) = transcriber.arrays([sound])
        assert found.text
        assert len(found.warnings) == (message is not None)
        if message is not None:
            assert message in found.warnings[0]
    (found,) = Transcriber(long_model, cpu, chunking=LIMITS).arrays([sound])
    assert found.warnings == []  # greedy search does not trust CTC


def test_the_timer_sees_alignments_and_what_is_kept_holds_no_batch(long_model, long):
    seen = []

    def timer(hypothesis, frame, start):
        seen.append((hypothesis.alignment.shape[-1], frame, start))
        return [Word(word, start, start, 1.0) for word in hypothesis.text.split()]

    device = torch.device("cpu")
    transcriber = Transcriber(long_model, device, chunking=LIMITS, timer=timer)
    (result,) = transcriber.files([long[1]])
    assert [w.word for chunk in result.chunks for w in chunk.words] == result.text.split()
    assert [start for *_, start in seen] == [w.start / RATE for w in result.chunks]
    assert all(columns > 1 for columns, *_ in seen)
    for chunk in result.chunks:
        for hypothesis in chunk.hypotheses:
            assert hypothesis.alignment.shape[-1] == 0
            for tensor in (hypothesis.alignment, hypothesis.ids, hypothesis.log_probs):
                assert tensor.untyped_storage().nbytes() == tensor.nbytes
    kept = Transcriber(long_model, device, chunking=LIMITS, keep_alignments=True)
    (result,) = kept.files([long[1]])
    alignments = [w.hypotheses[0].alignment for w in result.chunks]
    assert all(a.untyped_storage().nbytes() == a.nbytes > 0 for a in alignments)


class Looping:
    """Decodes short chunks as their number, and writes the same word for ever for long ones."""

    def __init__(self, transcriber, longest):
        self.n_best, self.longest, self.asked = transcriber.n_best, longest, []

    def __call__(self, batch):
        self.asked += [len(w) / RATE for w in batch]
        found = self.n_best(batch)
        return [
            [replace(h[0], finished=len(w) <= self.longest * RATE)]
            for w, h in zip(batch, found, strict=True)
        ]


def test_a_chunk_that_loops_is_split_until_it_does_not(long_model, monkeypatch):
    limits = ChunkingConfig(
        max_seconds=8.0, target_seconds=6.0, min_seconds=0.6, overlap_seconds=0.5
    )
    transcriber = Transcriber(long_model, torch.device("cpu"), chunking=limits)
    monkeypatch.setattr(quality, "MAX_UNTRANSCRIBED_SECONDS", 1e9)
    monkeypatch.setattr(quality, "MAX_BACKWARD_SECONDS", 1e9)
    monkeypatch.setattr(quality, "MAX_REPEATS", 1e9)
    monkeypatch.setattr(quality, "MAX_COMPRESSION", 1e9)
    waveform = np.concatenate([whistle(text, seed=1) for text in sentences(4, seed=2)])
    seconds = len(waveform) / RATE
    assert 4.4 < seconds < 8.0
    looping = Looping(transcriber, 2.4)
    monkeypatch.setattr(transcriber, "n_best", looping)
    (found,) = transcriber.arrays([waveform])
    assert len(found.chunks) >= 3
    assert all(w.quality.good for w in found.chunks)
    assert looping.asked[0] == seconds and max(looping.asked[1:]) < 0.8 * seconds
    assert found.chunks[0].start == 0 and found.chunks[-1].end == len(waveform)
    for a, b in itertools.pairwise(found.chunks):
        assert a.start < b.start <= a.end < b.end
    # Where splitting does not help, the whole is kept.
    monkeypatch.setattr(transcriber, "n_best", Looping(transcriber, -1.0))
    (found,) = transcriber.arrays([waveform])
    assert len(found.chunks) == 1 and not found.chunks[0].quality.finished
