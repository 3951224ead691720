"""WAV and its like: sizes that do not fit the file, chunks, and what is behind the samples."""

import functools
import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from las.audio import reader
from las.audio.reader import AudioError, load
from tests.audio.test_reader import SAMPLE_RATE, refused, speech_like

SAMPLES = speech_like(1.0)
LE, BE = "little", "big"

# How the size of the samples is written, in bytes around it: before, size of the number, order,
# what it counts besides samples.
SIZES = {
    "a.wav": ({"format": "WAV"}, b"data", 4, LE, 0),
    "a.rf64": ({"format": "RF64"}, None, 8, LE, 0),
    "x.wav": ({"format": "WAV", "endian": "BIG"}, b"data", 4, BE, 0),
    "a.aiff": ({"format": "AIFF"}, b"SSND", 4, BE, 8),
    "a.caf": ({"format": "CAF"}, b"data", 8, BE, 4),
    "a.au": ({"format": "AU"}, None, 4, BE, 0),
    "float.wav": ({"format": "WAV", "subtype": "FLOAT"}, b"data", 4, LE, 0),
    "ima.wav": ({"format": "WAV", "subtype": "IMA_ADPCM"}, b"data", 4, LE, 0),
    "gsm.wav": ({"format": "WAV", "subtype": "GSM610"}, b"data", 4, LE, 0),
}


def place(name, data):
    """Where the number is that says how many bytes of samples there are, and the number."""
    _, mark, width, order, besides = SIZES[name]
    if name == "a.rf64":
        at = data.index(b"ds64") + 16
    elif name == "a.au":
        at = 8
    else:
        at = data.index(mark) + 4
    return at, int.from_bytes(data[at : at + width], order) - besides


def saying(name, data, size):
    """The file with another number of bytes of samples in its header."""
    at, _ = place(name, data)
    _, _, width, order, besides = SIZES[name]
    return data[:at] + (size + besides).to_bytes(width, order) + data[at + width :]


@functools.cache
def made(name):
    """A file of one second."""
    stream = io.BytesIO()
    soundfile.write(stream, SAMPLES, SAMPLE_RATE, **SIZES[name][0])
    return stream.getvalue()


def samples_of(tmp_path, data, name="a.wav"):
    path = tmp_path / name
    path.write_bytes(data)
    return load(path)


@pytest.mark.parametrize("name", SIZES)
def test_a_size_of_0_is_that_of_a_recorder_that_was_killed(tmp_path, name):
    whole = samples_of(tmp_path, made(name))
    np.testing.assert_array_equal(samples_of(tmp_path, saying(name, made(name), 0)), whole)
    if name.endswith(".wav"):
        for size in (0, 36):  # of the RIFF, too
            order = BE if name == "x.wav" else LE
            data = saying(name, made(name), 0)
            data = data[:4] + size.to_bytes(4, order) + data[8:]
            np.testing.assert_array_equal(samples_of(tmp_path, data), whole)


@given(data=st.data(), name=st.sampled_from(sorted(SIZES)))
@settings(max_examples=60)
def test_all_of_the_sound_or_an_error(tmp_path_factory, data, name):
    whole = made(name)
    size = place(name, whole)[1]
    said = data.draw(st.integers(0, size + 4000))
    path = tmp_path_factory.mktemp("said") / name
    path.write_bytes(saying(name, whole, said))
    try:
        found = load(path)
    except AudioError as problem:
        assert said != size and len(str(problem).splitlines()) == 1
        if said and size - said >= 64:
            assert "the sizes in its header do not fit the file" in str(problem)
    else:
        assert len(SAMPLES) - 640 <= len(found) < len(SAMPLES) + 640


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("tail", [b"TAG" + bytes(range(125)), bytes(5000), b"\1" * 60])
def test_what_is_behind_the_samples_and_is_none(tmp_path, name, tail):
    expected = samples_of(tmp_path, made(name))
    np.testing.assert_array_equal(samples_of(tmp_path, made(name) + tail), expected)


def chunk(name, content, pad=True):
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2 * pad)


def wav(*chunks, form=b"WAVE"):
    body = form + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


PCM = (SAMPLES * 32767).astype("<i2").tobytes()
FMT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16))
LIST = chunk(b"LIST", b"INFOISFT\5\0\0\0Test\0\0")


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize(
    "between", [b"", LIST, chunk(b"odd ", b"\1\2\3")], ids=["none", "LIST", "odd"]
)
def test_two_chunks_of_samples(tmp_path, between, pad):
    if not pad:
        between = between.replace(b"\1\2\3\0", b"\1\2\3")
    half = len(PCM) // 4 * 2
    data = wav(FMT, chunk(b"data", PCM[:half]), between, chunk(b"data", PCM[half:]), LIST)
    expected = samples_of(tmp_path, wav(FMT, chunk(b"data", PCM)))
    np.testing.assert_array_equal(samples_of(tmp_path, data), expected)


def test_chunks_that_are_unknown_or_not_whole_are_no_sound(tmp_path):
    expected = samples_of(tmp_path, wav(FMT, chunk(b"data", PCM)))
    for tail in (
        chunk(b"xyz ", bytes(range(255)) * 9),
        LIST[:10],
        b"LIST\xff\xff\0\0" + b"x" * 999,
    ):
        np.testing.assert_array_equal(
            samples_of(tmp_path, wav(FMT, chunk(b"data", PCM), tail)), expected
        )


def test_an_empty_chunk_of_samples(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(FMT, chunk(b"data", b""), LIST * 50))
    refused(tmp_path / "a.wav", "has no samples")


def test_info_agrees(tmp_path):
    for name in SIZES:
        (tmp_path / name).write_bytes(saying(name, made(name), 0))
        assert reader.info(tmp_path / name).num_samples == len(load(tmp_path / name))
