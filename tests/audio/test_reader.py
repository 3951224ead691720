"""Every format gives the waveform that went in."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from las.audio import reader
from las.audio import stream as streaming
from las.audio.reader import MIN_SECONDS, SAMPLE_RATE, AudioError, info, load
from las.errors import LASError

SECONDS = 2.0

# name, soundfile's writer settings, whether samples come back exactly (to 16 bits)
FORMATS = {
    "a.wav": ({}, True),
    "a.flac": ({}, True),
    "a.aiff": ({}, True),
    "a.au": ({}, True),
    "a.w64": ({}, True),
    "a.sph": ({"format": "NIST"}, True),
    "a.ogg": ({"format": "OGG", "subtype": "VORBIS"}, False),
    "a.opus": ({"format": "OGG", "subtype": "OPUS"}, False),
    "a.mp3": ({"format": "MP3"}, False),
}


def speech_like(seconds: float = SECONDS, rate: int = SAMPLE_RATE, seed: int = 0) -> np.ndarray:
    """A gliding tone with loud and quiet parts and a little noise, [S]."""
    t = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (300 * t + 150 * np.sin(t))) * (0.6 + 0.4 * np.sin(9 * t))
    noise = np.random.default_rng(seed).normal(size=len(t))
    return (0.4 * tone + 0.005 * noise).astype(np.float32)


def write(path: Path, samples: np.ndarray | None = None, rate: int = SAMPLE_RATE, **kw) -> Path:
    soundfile.write(path, speech_like() if samples is None else samples, rate, **kw)
    return path


def similarity(expected: np.ndarray, found: np.ndarray, shift: int = 0) -> float:
    """Correlation with `found` taken to be late by `shift` samples."""
    expected, found = expected[max(0, -shift) :], found[max(0, shift) :]
    n = min(len(expected), len(found))
    return float(np.corrcoef(expected[:n], found[:n])[0, 1])


def delay(expected: np.ndarray, found: np.ndarray) -> int:
    """Samples that `found` is late by, negative if early."""
    size = 2 * max(len(expected), len(found))
    products = np.fft.irfft(np.fft.rfft(found, size) * np.fft.rfft(expected, size).conj(), size)
    best = int(products.argmax())
    return best if best < size // 2 else best - size


def run_ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *arguments], check=True)


def refused(path: Path | str, *words: str) -> str:
    """Load, expect an AudioError of one line with the file's name, a cure and these words."""
    with pytest.raises(AudioError) as caught:
        load(path)
    message = str(caught.value)
    assert isinstance(caught.value, LASError)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path}: ") and "; " in message
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("name", FORMATS)
def test_format_round_trip(tmp_path, name):
    settings, exact = FORMATS[name]
    path = write(tmp_path / name, **settings)
    waveform = load(path)
    assert waveform.dtype == np.float32 and waveform.ndim == 1 and waveform.flags["C_CONTIGUOUS"]
    assert len(waveform) == SECONDS * SAMPLE_RATE
    if exact:
        np.testing.assert_allclose(waveform, speech_like(), atol=2**-15)
    else:
        assert similarity(speech_like(), waveform) > 0.99


@pytest.mark.parametrize("name", FORMATS)
def test_info_reads_the_header(tmp_path, name):
    path = write(tmp_path / name, **FORMATS[name][0])
    assert info(path) == reader.AudioInfo(32000, 16000, 1, 2.0)


def test_str_and_path_give_the_same(tmp_path):
    path = write(tmp_path / "a.wav")
    np.testing.assert_array_equal(load(str(path)), load(path))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_resampling_keeps_length_and_waveform(tmp_path, rate):
    path = write(tmp_path / "a.wav", speech_like(rate=rate), rate)
    waveform = load(path)
    assert waveform.dtype == np.float32
    assert abs(len(waveform) - SECONDS * SAMPLE_RATE) <= 1
    assert similarity(speech_like(), waveform) > 0.999


def test_another_target_rate(tmp_path):
    path = write(tmp_path / "a.wav")
    assert len(load(path, sample_rate=8000)) == 16000


def test_channels_are_averaged(tmp_path):
    left, right = speech_like(seed=1), -0.5 * speech_like(seed=2)
    path = write(tmp_path / "a.wav", np.stack([left, right], 1), subtype="FLOAT")
    np.testing.assert_allclose(load(path), (left + right) / 2, atol=1e-6)


def test_eight_channels_at_96_khz(tmp_path):
    tone = speech_like(rate=96000)
    path = write(tmp_path / "a.wav", np.stack([k / 4.5 * tone for k in range(1, 9)], 1), 96000)
    assert info(path).channels == 8 and info(path).duration == SECONDS
    waveform = load(path)
    assert len(waveform) == SECONDS * SAMPLE_RATE
    assert similarity(speech_like(), waveform) > 0.999
    assert np.abs(waveform).max() == pytest.approx(np.abs(tone).max(), rel=0.05)


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_join_without_a_seam(tmp_path, name, monkeypatch):
    path = write(tmp_path / name, **FORMATS[name][0])
    whole = load(path)
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 1000)
    monkeypatch.setattr(reader, "_FIRST_SAMPLES", 10)
    np.testing.assert_allclose(load(path), whole, atol=1e-6)


def test_name_that_is_not_utf8(tmp_path):
    try:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
        path.write_bytes(write(tmp_path / "a.wav").read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system holds UTF-8 names only")
    assert len(load(path)) == SECONDS * SAMPLE_RATE
    path.write_bytes(b"")
    with pytest.raises(AudioError) as caught:
        load(path)
    str(caught.value).encode()  # printable anywhere


def test_shortest_length_that_is_accepted(tmp_path):
    samples = speech_like(seconds=MIN_SECONDS)
    assert len(load(write(tmp_path / "a.wav", samples))) == 800
    refused(write(tmp_path / "b.wav", samples[:-1]), "ms", "50 ms")


def test_header_without_a_length_is_read_to_the_end(tmp_path):
    # What programs that write to a pipe leave behind: the largest size there is.
    path = write(tmp_path / "a.wav")
    data = path.read_bytes().replace(struct.pack("<I", 64000), struct.pack("<I", 0xFFFFFFFF))
    path.write_bytes(data)
    np.testing.assert_allclose(load(path), speech_like(), atol=2**-15)


def test_absurd_size_in_a_header_reserves_nothing(tmp_path):
    # 36 bits of FLAC's STREAMINFO say how many samples follow: 2**36 - 1 would take 256 GiB.
    path = write(tmp_path / "a.flac")
    data = bytearray(path.read_bytes())
    data[21] |= 0x0F
    data[22:26] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert info(path).num_samples == 2**36 - 1
    refused(path, "cut short")


def test_absurd_rate_in_a_header_is_refused(tmp_path):
    refused(write(tmp_path / "a.wav", rate=1), "1 Hz")


def test_reserved_memory_follows_the_samples_not_the_header(tmp_path, monkeypatch):
    reserved = []
    empty = np.empty

    def watched(shape, *args, **kwargs):
        reserved.append(shape)
        return empty(shape, *args, **kwargs)

    monkeypatch.setattr(reader.np, "empty", watched)
    blocks = iter([np.ones((5, 1), np.float32)] * 300)
    stream = streaming.Stream(16000, 1, 2**40, blocks)
    with pytest.raises(AudioError, match="1500 of 1099511627776"):
        reader._gather(reader._mono(Path("a.flac"), stream, 16000), 2**40)
    assert reserved == [reader._FIRST_SAMPLES]


def test_importing_loads_neither_librosa_nor_torch():
    code = (
        "import sys, las.audio.reader; print([m for m in ('librosa', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def truncated(path: Path, part: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    return path


def text(folder: Path) -> Path:
    (folder / "a.wav").write_text("THE CAT SAT ON THE MAT\n" * 50)
    return folder / "a.wav"


def test_mp3_without_a_length_is_read_to_the_end(tmp_path):
    # Quiet, then loud, at a variable rate: the first frame's rate says nothing of the rest.
    samples = speech_like(seconds=12)
    samples[: 8 * SAMPLE_RATE] *= 0.001
    path = tmp_path / "a.mp3"
    run_ffmpeg("-i", write(tmp_path / "in.wav", samples), "-q:a", "4", "-write_xing", "0", path)
    assert soundfile.info(path).frames != len(samples)  # libsndfile's guess, the reason for this
    waveform = load(path)
    assert len(samples) <= len(waveform) < len(samples) + 5 * 576
    assert similarity(samples, waveform, delay(samples, waveform)) > 0.98
    assert info(path).num_samples == len(waveform)


def test_mp3_behind_a_large_tag(tmp_path):
    path = write(tmp_path / "a.mp3")
    size = 300_000
    tag = b"ID3\x03\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)
    expected = load(path)
    path.write_bytes(tag + path.read_bytes())
    np.testing.assert_array_equal(load(path), expected)


def test_flac_from_a_pipe_is_read_to_the_end(tmp_path):
    source = write(tmp_path / "in.wav")
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(source), "-f", "flac", "pipe:1"]
    path = tmp_path / "a.flac"
    path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    np.testing.assert_allclose(load(path), speech_like(), atol=2**-15)
    assert info(path).num_samples == SECONDS * SAMPLE_RATE


def test_the_duration_of_a_long_file_needs_little_of_it(tmp_path, monkeypatch):
    wav, m4a = write(tmp_path / "a.wav", speech_like(5.0)), tmp_path / "a.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", wav, m4a], check=True)
    assert reader.seconds(m4a) == info(m4a).duration == pytest.approx(5.0, abs=0.1)
    monkeypatch.setattr(streaming, "BLOCK_SAMPLES", 1000)
    assert reader.seconds(wav, 1.0) == 5.0  # its header tells
    assert 1.0 < reader.seconds(m4a, 1.0) < 1.2
