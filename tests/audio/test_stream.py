"""Blocks are the waveform that `load` gives; standard input is as good as a file."""

import io
import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from las.audio import ffmpeg, reader
from las.audio import stream as streaming
from las.audio.reader import AudioError
from tests.audio.test_ffmpeg import AU, fake_ffmpeg
from tests.audio.test_reader import (
    FORMATS,
    run_ffmpeg,
    speech_like,
    text,
    truncated,
    write,
)


def whole(source, sample_rate: int = 16000) -> np.ndarray:
    return np.concatenate(list(reader.blocks(source, sample_rate)))


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_are_what_load_gives(tmp_path, name, monkeypatch):
    path = write(tmp_path / name, **FORMATS[name][0])
    expected = reader.load(path)
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 1000)
    found = list(reader.blocks(path))
    assert len(found) >= 32
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-6)
    assert all(block.dtype == np.float32 and len(block) for block in found)


def test_blocks_through_ffmpeg(tmp_path, monkeypatch):
    run_ffmpeg("-i", write(tmp_path / "in.wav", speech_like(rate=44100), 44100), tmp_path / "a.m4a")
    expected = reader.load(tmp_path / "a.m4a")
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 1000)
    np.testing.assert_allclose(whole(tmp_path / "a.m4a"), expected, atol=1e-6)


@given(
    st.sampled_from([8000, 11025, 22050, 44100, 48000, 96000, 16001, 16000]),
    st.lists(st.integers(1, 5000), min_size=1, max_size=8),
)
def test_resampling_in_blocks_leaves_no_trace(rate, sizes):
    samples = np.random.default_rng(rate).normal(size=sum(sizes)).astype(np.float32)
    edges = np.cumsum(sizes)[:-1]
    found = np.concatenate(list(reader.resampled(np.split(samples, edges), rate, 16000)))
    expected = librosa.resample(samples, orig_sr=rate, target_sr=16000)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.mp3"])
def test_a_binary_stream(tmp_path, name):
    path = write(tmp_path / name, **FORMATS[name][0])
    np.testing.assert_array_equal(whole(io.BytesIO(path.read_bytes())), reader.load(path))
    with path.open("rb") as file:
        np.testing.assert_array_equal(whole(file), reader.load(path))


@pytest.mark.parametrize(("data", "words"), [(b"", "is empty"), (b"text\n" * 99, "not an audio")])
def test_a_bad_binary_stream_is_named(data, words):
    stream = io.BytesIO(data)
    with pytest.raises(AudioError, match=f"^<stream>: {words}"):
        whole(stream)
    stream.name = "<stdin>"
    assert reader.shown_name(stream) == Path("<stdin>")
    with pytest.raises(AudioError, match=r"^<stdin>: "):
        whole(stream)


def test_a_stream_that_cannot_be_read():
    class Broken(io.RawIOBase):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(AudioError, match=r"^<stream>: cannot be copied \(Input/output error\)"):
        whole(Broken())


def test_damage_ends_the_blocks_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 1000)
    path = truncated(write(tmp_path / "a.flac"), 0.5)
    with pytest.raises(AudioError, match="fetch it again"):
        whole(path)


def test_nothing_follows_a_sample_that_is_not_a_number(tmp_path, monkeypatch):
    samples = speech_like()
    samples[[4500, 20000]] = np.nan
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 1000)
    taken = []
    with pytest.raises(AudioError, match="has 2 samples"):
        taken.extend(reader.blocks(path))
    taken.clear()
    source = reader.blocks(path)
    for block in source:
        taken.append(block)
        if len(taken) == 4:
            break
    np.testing.assert_allclose(np.concatenate(taken), samples[:4000], atol=1e-6)
    with pytest.raises(AudioError):
        next(source)


def test_ffmpeg_may_be_waited_for_as_long_as_blocks_come(tmp_path, monkeypatch):
    pause = "[(time.sleep(0.4), os.write(1, bytes(4000))) for _ in range(4)]"
    program = fake_ffmpeg(tmp_path, f"{AU}; {pause}")
    monkeypatch.setattr(ffmpeg, "program", lambda: program)
    monkeypatch.setattr(ffmpeg, "_SECONDS", 1.0)
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 1000)
    assert len(whole(text(tmp_path))) == 24000


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(seconds: int) -> int:
        path = tmp_path / "a.wav"
        soundfile.write(path, np.zeros(22050 * seconds, np.float32), 22050)
        tracemalloc.start()
        for _ in reader.blocks(path):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(60)
    assert peak(600) < 1.1 * peak(60)
