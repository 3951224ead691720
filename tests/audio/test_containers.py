"""Files that go on after what their header says: all of the sound, or an error; never a part."""

import functools
import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from las.audio import ffmpeg, flac, mpeg, reader
from las.audio.reader import AudioError, load
from las.audio.spliced import Spliced
from tests.audio.test_reader import (
    FORMATS,
    SAMPLE_RATE,
    refused,
    run_ffmpeg,
    similarity,
    speech_like,
    write,
)

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


# --- Ogg ------------------------------------------------------------------------------------


def pages(data):
    starts = []
    place = 0
    while place < len(data):
        starts.append(place)
        count = data[place + 26]
        place += 27 + count + sum(data[place + 27 : place + 27 + count])
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_with_pages_that_are_missing(tmp_path, subtype):
    path = write(tmp_path / "a.ogg", speech_like(20.0), format="OGG", subtype=subtype)
    found = pages(path.read_bytes())
    assert len(found) >= 5
    path.write_bytes(b"".join(found[:3] + found[4:]))
    refused(path, "pages are missing")
    path.write_bytes(b"".join(found[2:]))
    refused(path, "its first pages are missing")
    path.write_bytes(b"".join(found[:-1]))
    refused(path, "its last page is missing")
    path.write_bytes(b"".join(found)[:-7])
    refused(path, "its last page is incomplete")
    path.write_bytes(b"".join(found[:3]) + b"junk" * 500 + b"".join(found[3:]))
    refused(path, "there is no page at byte")


def test_one_link_that_is_cut_short_among_several(tmp_path):
    one = write(tmp_path / "1.ogg", speech_like(20.0)).read_bytes()
    path = tmp_path / "a.ogg"
    path.write_bytes(one + b"".join(pages(one)[:-1]) + one)
    refused(path, "its last page is missing")


# --- FLAC -----------------------------------------------------------------------------------


def announcing(data, samples):
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | samples
    return data[:18] + packed.to_bytes(8, "big") + data[26:]


@pytest.mark.parametrize("seconds", [0.3, 20.0])
@pytest.mark.parametrize("announced", [1, 2000, -1])
def test_flac_that_announces_less(tmp_path, seconds, announced):
    path = write(tmp_path / "a.flac", samples := speech_like(seconds))
    data = path.read_bytes()
    path.write_bytes(announcing(data, announced % len(samples)))
    np.testing.assert_allclose(load(path), samples, atol=2**-15)
    path.write_bytes(data + b"TAG" + bytes(125))
    np.testing.assert_allclose(load(path), samples, atol=2**-15)


@given(st.integers(1000, 60000), st.sampled_from([8000, 16000, 44100, 12345, 96000]))
@settings(max_examples=30)
def test_the_last_frame_of_a_flac_is_found(count, rate):
    stream = io.BytesIO()
    noise = np.random.default_rng(count).normal(scale=0.1, size=count)
    soundfile.write(stream, noise, rate, format="FLAC")
    data = stream.getvalue()
    assert flac.samples(stream, len(data), data[:42]) == count
    assert flac.parts(stream, len(data)) is None


# --- MP3 ------------------------------------------------------------------------------------


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


# --- what ffmpeg reads ----------------------------------------------------------------------


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


# --- pieces ---------------------------------------------------------------------------------


@given(data=st.data())
def test_spliced_is_a_file(data):
    whole = bytes(range(256)) * 2
    pieces, expected = [], b""
    for _ in range(data.draw(st.integers(0, 4))):
        a, b = sorted(data.draw(st.tuples(st.integers(0, 512), st.integers(0, 512))))
        inside = data.draw(st.booleans())
        pieces.append(range(a, b) if inside else whole[a:b])
        expected += whole[a:b]
    file, model = Spliced(io.BytesIO(whole), pieces), io.BytesIO(expected)
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans()):
            offset, whence = data.draw(st.integers(0, 600)), data.draw(st.sampled_from([0, 2]))
            offset = -min(offset, len(expected)) if whence == 2 else offset
            assert file.seek(offset, whence) == model.seek(offset, whence)
        else:
            count = data.draw(st.integers(0, 600))
            assert file.read(count) == model.read(count)
        assert file.tell() == model.tell()


def test_info_agrees(tmp_path):
    for name in SIZES:
        (tmp_path / name).write_bytes(saying(name, made(name), 0))
        assert reader.info(tmp_path / name).num_samples == len(load(tmp_path / name))
