"""MP3 files: frames are followed to the end of the file, whatever their headers announce."""

import struct

import numpy as np
import pytest

from las.audio import mpeg
from las.audio.reader import load
from tests.audio.test_reader import SAMPLE_RATE, refused, run_ffmpeg, speech_like, write
from tests.audio.test_riff import LIST, chunk, samples_of, wav


def mp3(tmp_path, *arguments, seconds=4.0):
    write(tmp_path / "in.wav", speech_like(seconds))
    run_ffmpeg("-i", tmp_path / "in.wav", *arguments, tmp_path / "a.mp3")
    return (tmp_path / "a.mp3").read_bytes()


@pytest.mark.parametrize("xing", [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_joined_mp3s_with_and_without_a_header(tmp_path, xing):
    data = b"".join(mp3(tmp_path, "-write_xing", str(wanted), "-q:a", "5") for wanted in xing)
    found = samples_of(tmp_path, data, "b.mp3")
    assert 8.0 * SAMPLE_RATE <= len(found) <= 8.3 * SAMPLE_RATE
    assert np.std(found[-SAMPLE_RATE * 3 :]) > 0.1


def test_an_mp3_that_announces_fewer_frames(tmp_path):
    data = bytearray(mp3(tmp_path))
    at = data.index(b"Xing") if b"Xing" in data else data.index(b"Info")
    assert data[at + 7] & 1
    data[at + 8 : at + 12] = (9).to_bytes(4, "big")
    assert 4.0 * SAMPLE_RATE <= len(samples_of(tmp_path, data, "b.mp3")) <= 4.2 * SAMPLE_RATE


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_frames_of_mp3_are_counted_at_every_rate(tmp_path, rate, channels):
    samples = np.stack([speech_like(1.0, rate)] * channels, 1)
    path = write(tmp_path / "a.mp3", samples, rate)
    with path.open("rb") as file:
        size = path.stat().st_size
        assert mpeg.parts(file, size) is None
        path.write_bytes(path.read_bytes() * 2)
        assert [len(part.pieces[0]) for part in mpeg.parts(file, 2 * size)] == [size, size]


def test_mp3_in_wav(tmp_path):
    frames = write(tmp_path / "a.mp3").read_bytes()
    shape = struct.pack("<HHIIHHHHIHHH", 0x55, 1, SAMPLE_RATE, 4000, 1, 0, 12, 1, 2, 144, 1, 0)
    data = wav(chunk(b"fmt ", shape), chunk(b"fact", b"\1\2\0\0"), chunk(b"data", frames), LIST)
    np.testing.assert_array_equal(samples_of(tmp_path, data), load(tmp_path / "a.mp3"))
    (tmp_path / "a.wav").write_bytes(data[: len(data) * 3 // 4])
    refused(tmp_path / "a.wav", "cut short")
