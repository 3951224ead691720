"""A stream gives the samples of a file with its bytes; those of a WAV while it arrives."""

import io
import os
import struct
import threading

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speech import full_disk

from las.audio import reader
from las.audio.arriving import copy, wav
from las.audio.reader import AudioError

RATE = 8000
SECONDS = 60  # until a test gives up


class Pieces(io.RawIOBase):
    """A stream that arrives in pieces of given sizes, again and again."""

    def __init__(self, data, sizes):
        self.data, self.sizes, self.place, self.count = data, sizes, 0, 0

    def read(self, size=-1):
        self.count += 1
        if self.count % 3 == 0:
            return None  # nothing is there yet
        start, self.place = self.place, self.place + self.sizes[self.count % len(self.sizes)]
        return self.data[start : self.place]


def samples(seconds=1.0, channels=1, seed=0):
    return 0.3 * np.random.default_rng(seed).standard_normal((round(seconds * RATE), channels))


def written(kind="WAV", subtype="PCM_16", channels=1, seconds=1.0, **more):
    file = io.BytesIO()
    soundfile.write(file, samples(seconds, channels), RATE, format=kind, subtype=subtype, **more)
    return file.getvalue()


def resized(data, size):
    """A WAV with another size of its samples in the header."""
    place = data.index(b"data") + 4
    return data[:place] + struct.pack("<I", size) + data[place + 4 :]


def outcome(source, name, rate=RATE):
    """The samples, or what is wrong, with the same name for all sources."""
    try:
        return np.concatenate(list(reader.blocks(source, rate)))
    except AudioError as error:
        return str(error).replace(str(name), "NAME", 1)


def same(data, tmp_path, sizes=(1 << 16,), rate=RATE):
    path = tmp_path / "file"
    path.write_bytes(data)
    expected = outcome(path, path, rate)
    found = outcome(Pieces(data, sizes), "<stream>", rate)
    assert type(found) is type(expected), (found, expected)
    if isinstance(expected, str):
        assert found == expected
    else:
        np.testing.assert_array_equal(found, expected)
    return expected


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["WAV", "WAVEX"]),
    subtype=st.sampled_from(sorted(set(wav._SUBTYPES.values()))),
    channels=st.integers(1, 3),
    seconds=st.floats(0.01, 1.5),
    rate=st.sampled_from([8000, 16000]),
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=4).filter(lambda s: sum(s) > 500),
)
def test_any_wav_in_any_pieces(tmp_path, kind, subtype, channels, seconds, rate, sizes):
    same(written(kind, subtype, channels, seconds), tmp_path, sizes, rate)


LIST = b"LIST" + struct.pack("<I", 4) + b"INFO"
WHOLE = written()
ODD = {
    "written to a pipe": resized(WHOLE, 0xFFFFFFFF),
    "of a killed recorder": resized(WHOLE, 0),
    "cut short": WHOLE[:-700],
    "cut in the header": WHOLE[:30],
    "with a size that is too small": resized(WHOLE, 4000),
    "with a chunk after the samples": WHOLE + LIST,
    "with a chunk before the samples": WHOLE[:12] + LIST + WHOLE[12:],
    "twice": WHOLE + WHOLE,
    "with another of two channels": WHOLE + written(channels=2),
    "with a second chunk of samples": WHOLE + WHOLE[WHOLE.index(b"data") :],
    "not a number": written(subtype="FLOAT")[:-4] + struct.pack("<f", np.nan),
    "a moment": written(seconds=0.01),
    "of a byte too much": resized(WHOLE + b"\1", 0xFFFFFFFF),
    "ADPCM": written(subtype="IMA_ADPCM"),
    "big-endian": written(endian="BIG"),
    "RF64": written("RF64"),
    "FLAC": written("FLAC"),
    "AU": written("AU"),
    "empty": b"",
    "a text": b"This is a text.\n" * 99,
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_to_a_stream_what_they_are_on_disk(tmp_path, kind):
    found = same(ODD[kind], tmp_path, (999, 5))
    damaged = ("cut", "small", "channels", "number", "moment", "empty", "text")
    assert isinstance(found, str) == any(word in kind for word in damaged)


def test_a_wav_is_read_while_it_arrives():
    data = written(seconds=2.0)
    reading, writing = os.pipe()
    half = len(data) // 2

    def rest():
        if not sink.closed and sum(map(len, got)) >= RATE * 3 // 4:
            sink.write(data[half:])
            sink.close()

    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as sink:
        with reader.copied(source, "stdin") as path:
            sink.write(data[:half])
            blocks, got = reader.blocks(path, RATE, waiting=rest), []
            while sum(map(len, got)) < RATE * 3 // 4:
                got.append(next(blocks))
            got += blocks
            np.testing.assert_array_equal(np.concatenate(got), reader.load(path, RATE))
        assert copy.of(path) is None


def test_what_reads_a_copy_waits_for_its_end():
    data = written("FLAC", seconds=2.0)
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "rb") as source,
        reader.copied(source, "stdin") as path,
        os.fdopen(writing, "wb", buffering=0) as sink,
    ):
        sink.write(data[:1000])
        threading.Timer(0.05, lambda: (sink.write(data[1000:]), sink.close())).start()
        assert reader.info(path).duration == 2.0


def test_no_room_for_a_copy():
    with full_disk(1000), reader.copied(io.BytesIO(written()), "stdin") as path:
        with pytest.raises(AudioError, match=r"^stdin: cannot be copied .*TMPDIR"):
            list(reader.blocks(path))
        with pytest.raises(AudioError, match=r"^stdin: cannot be copied .*TMPDIR"):
            reader.load(path)


def test_a_stream_that_is_left_is_not_copied_on(tmp_path):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as sink:
        with (tmp_path / "copy").open("w+b") as file:
            with copy.arriving(source, file, "stdin") as path:
                stream = copy.of(path)
                sink.write(b"1234")
                assert stream.wait(4) == 4
            sink.write(b"5678")
            with stream._changed:
                assert stream._changed.wait_for(lambda: stream._ended, SECONDS)
        assert (tmp_path / "copy").read_bytes() == b"1234"
