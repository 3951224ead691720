"""Files that go on after what their header says: all of the sound, or an error; never a part."""

import functools
import io
import struct

import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from las.audio import ffmpeg
from las.audio.reader import AudioError, load
from tests.audio.test_reader import (
    FORMATS,
    SAMPLE_RATE,
    refused,
    run_ffmpeg,
    similarity,
    speech_like,
    write,
)
from tests.audio.test_riff import SAMPLES, SIZES, made


@pytest.mark.parametrize("name", [*FORMATS, "ima.wav", "a.rf64", "a.caf"])
def test_joined_files(tmp_path, name):
    settings = FORMATS[name][0] if name in FORMATS else SIZES[name][0]
    path = write(tmp_path / name, **settings)
    once, data = load(path), path.read_bytes()
    path.write_bytes(data + data)
    try:
        found = load(path)
    except AudioError as problem:
        assert len(str(problem).splitlines()) == 1
        assert name in ("a.au", "a.flac")
    else:  # what does not look for an end hears the second header
        assert 2 * len(once) <= len(found) <= 2 * len(once) + 1024
        assert similarity(once, found[-len(once) :]) > 0.98


def test_parts_of_different_rates_are_an_error(tmp_path):
    one = write(tmp_path / "1.ogg", speech_like()).read_bytes()
    two = write(tmp_path / "2.ogg", speech_like(rate=22050), 22050).read_bytes()
    (tmp_path / "a.ogg").write_bytes(one + two)
    refused(tmp_path / "a.ogg", "part 2 of 2 has 22050 Hz", "the first 16000 Hz")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.m4a", ()),
        ("a.mp4", ("-movflags", "frag_keyframe+empty_moov", "-frag_duration", "300000")),
        ("a.wma", ()),
        ("a.flv", ("-ar", "22050")),
        ("a.tta", ()),
        ("a.mka", ()),
        ("a.avi", ()),
        ("a.ts", ("-c:a", "mp2")),
        ("a.aac", ()),
        ("a.mp2", ()),
        ("a.ac3", ()),
        ("a.amr", ("-ar", "8000")),
        ("a.wv", ()),
    ],
)
def test_joined_files_that_ffmpeg_reads(tmp_path, name, options):
    run_ffmpeg("-i", write(tmp_path / "in.wav"), *options, tmp_path / name)
    once, data = len(load(tmp_path / name)), (tmp_path / name).read_bytes()
    assert once >= 32000
    if name == "a.amr":
        data, more = data, data[6:]
    else:
        more = data
    (tmp_path / name).write_bytes(data + more)
    try:
        found = len(load(tmp_path / name))
    except AudioError as problem:
        assert len(str(problem).splitlines()) == 1
        assert name in ("a.m4a", "a.mp4", "a.wma", "a.flv", "a.tta", "a.wv")
        assert name == "a.wv" or "another file follows the first" in str(problem)
    else:
        assert abs(found - 2 * once) <= 0.02 * once


def test_fragments_are_read_to_the_end_or_refused(tmp_path, monkeypatch):
    options = ("-movflags", "frag_keyframe+empty_moov", "-frag_duration", "300000")
    run_ffmpeg("-i", write(tmp_path / "in.wav"), *options, path := tmp_path / "a.mp4")
    data = path.read_bytes()
    assert data.count(b"moof") >= 6 and 32000 <= len(load(path)) < 34000
    path.write_bytes(data[: data.rindex(b"moof") - 50])
    refused(path, "of `mdat` are there")
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    refused(path, "of `mdat` are there")


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["set", "drop", "cut", "copy"]),
        st.integers(0, 300),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=5,
)


@functools.cache
def originals():
    found = {name: made(name) for name in SIZES}
    for kind, subtype in (("OGG", "VORBIS"), ("MP3", None), ("FLAC", None), ("W64", None)):
        stream = io.BytesIO()
        soundfile.write(stream, SAMPLES, SAMPLE_RATE, format=kind, subtype=subtype)
        found[kind.lower()] = stream.getvalue() * 2
    found["mp4"] = struct.pack(">I4s8sI4s", 16, b"ftyp", b"M4A isom", 8, b"moov") * 2
    found["asf"] = (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes([24] + [0] * 7)) * 2
    found["flv"] = (b"FLV\1\4\0\0\0\x09\0\0\0\0" + b"\x08\0\0\1" + bytes(12)) * 2
    found["tta"] = (b"TTA1\1\0\1\0\x10\0" + struct.pack("<II", 16000, 999999)) * 9
    return found


@given(name=st.sampled_from(sorted(originals())), changes=CHANGES)
@settings(max_examples=300)
def test_damage_anywhere_is_an_error_of_one_line(tmp_path_factory, name, changes):
    data = bytearray(originals()[name])
    for kind, place, new in changes:
        if kind == "set":
            data[place : place + len(new)] = new
        elif kind == "drop":
            del data[place : place + len(new)]
        elif kind == "cut":
            data = data[: 1 + place * 100]
        else:
            data[place:place] = data[:place]
    path = tmp_path_factory.mktemp("damaged") / "a"
    path.write_bytes(data or b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ffmpeg, "program", lambda: None)
        try:
            assert len(load(path))
        except AudioError as problem:
            assert len(str(problem).splitlines()) == 1 and str(problem).startswith(f"{path}: ")
