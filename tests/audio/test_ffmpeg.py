"""Formats that libsndfile does not know: ffmpeg reads all of them, at the times of the file."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from las.audio import ffmpeg, reader, stream
from las.audio.reader import load
from tests.audio.test_reader import (
    SAMPLE_RATE,
    SECONDS,
    delay,
    refused,
    run_ffmpeg,
    similarity,
    speech_like,
    text,
    truncated,
    write,
)

RATE = 8000
# Codecs in containers that libsndfile knows; its error codes differ.
CODECS = {
    "g726.wav": ("-ar", RATE, "-c:a", "g726", "-b:a", "32k"),
    "g723.wav": ("-ar", RATE, "-c:a", "g723_1", "-b:a", "6.3k"),
    "yamaha.wav": ("-c:a", "adpcm_yamaha"),
    "ac3.wav": ("-c:a", "ac3"),
    "flac.oga": ("-c:a", "flac"),
    "alac.caf": ("-c:a", "alac"),
    "ima.aifc": ("-f", "aiff", "-c:a", "adpcm_ima_qt"),
    "mp2.wav": ("-c:a", "mp2"),
}
VIDEO = ("-f", "lavfi", "-i", "testsrc=d=3:s=64x64")
BROKEN = ("-bsf:v", "noise=amount=1")


def source(tmp_path, **kw):
    return write(tmp_path / "in.wav", speech_like(), **kw)


@pytest.mark.parametrize("name", CODECS)
def test_codecs_that_libsndfile_does_not_know(tmp_path, name, monkeypatch):
    path = tmp_path / name
    run_ffmpeg("-i", source(tmp_path), *map(str, CODECS[name]), path)
    found = load(path)
    assert abs(len(found) - 32000) <= 4000
    late = delay(speech_like(), found)
    assert abs(late) < 2400
    # G.723.1 keeps the sound of speech, not its waveform.
    assert similarity(speech_like(), found, late) > (0.5 if name == "g723.wav" else 0.95)
    assert reader.info(path).num_samples >= 16000
    try:
        soundfile.info(path)
    except soundfile.LibsndfileError:
        monkeypatch.setattr(ffmpeg, "program", lambda: None)
        message = refused(path, "libsndfile does not know the codec", "install ffmpeg")
        assert "damaged" not in message and "cut short" not in message
    else:
        assert name == "ima.aifc"


def test_a_damaged_file_is_called_so_without_ffmpeg(tmp_path, monkeypatch):
    path = write(tmp_path / "a.flac")
    path.write_bytes(path.read_bytes()[:60])
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    refused(path, "cannot be decoded by libsndfile", "fetch it again, or install ffmpeg")


# --- video, pictures, several tracks --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "mjpeg"), ("a.ts", "mpeg2video"), ("a.avi", "mpeg4")],
)
def test_a_broken_video_does_not_matter(tmp_path, name, codec):
    whole, path = tmp_path / f"whole-{name}", tmp_path / name
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    sound = ("-c:a", "mp2") if name == "a.ts" else ("-c:a", "aac")
    run_ffmpeg(*VIDEO, "-i", source(tmp_path), "-c:v", codec, "-pix_fmt", pixels, *sound, whole)
    run_ffmpeg("-i", whole, "-c", "copy", *BROKEN, path)
    assert path.read_bytes() != whole.read_bytes()
    found = load(path)
    assert len(found) >= 32000
    assert similarity(speech_like(), found, delay(speech_like(), found)) > 0.97


@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "a.wma"])
def test_a_broken_cover_does_not_matter(tmp_path, name):
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64", "-frames:v", "1", tmp_path / "p.jpg")
    more = ("-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic")
    run_ffmpeg("-i", source(tmp_path), "-i", tmp_path / "p.jpg", *more, *BROKEN, tmp_path / name)
    found = load(tmp_path / name)
    assert similarity(speech_like(), found, delay(speech_like(), found)) > 0.97


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_broken_sound_does(tmp_path, name):
    path = tmp_path / name
    run_ffmpeg(
        *VIDEO, "-i", source(tmp_path), "-c:v", "mpeg4", "-c:a", "aac", tmp_path / f"w{name}"
    )
    run_ffmpeg("-i", tmp_path / f"w{name}", "-c", "copy", "-bsf:a", "noise=amount=1", path)
    refused(path, "ffmpeg: ")


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_track_is_heard_and_said(tmp_path, default):
    tone = ("-f", "lavfi", "-i", "sine=f=440:d=2:r=16000")
    flags = ("-disposition:a", "0", f"-disposition:a:{default}", "default")
    path = tmp_path / "a.mka"
    run_ffmpeg("-i", source(tmp_path), *tone, "-map", "0", "-map", "1", *flags, path)
    notes = []
    found = np.concatenate(list(reader.blocks(path, notes=notes)))
    first = similarity(speech_like(), found, delay(speech_like(), found)) > 0.9
    assert first == (default == 0)
    assert notes == [f"it has 2 audio tracks; number {default + 1}, the default, is used"]


def test_one_track_is_not_worth_a_note(tmp_path):
    path = tmp_path / "a.mkv"
    run_ffmpeg(*VIDEO, "-i", source(tmp_path), "-c:v", "mpeg4", path)
    notes = []
    list(reader.blocks(path, notes=notes))
    assert notes == []


# --- times ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", ("-c:v", "mpeg4", "-c:a", "aac")),
        ("a.mkv", ("-c:v", "mpeg4", "-c:a", "flac")),
        ("a.webm", ("-c:v", "libvpx", "-c:a", "libopus")),
        ("a.ts", ("-c:v", "mpeg2video", "-c:a", "mp2")),
        ("a.mpg", ("-c:v", "mpeg2video", "-c:a", "mp2")),
        ("a.flv", ("-c:v", "flv", "-c:a", "libmp3lame", "-ar", "22050")),
        ("alone.mka", ("-c:a", "flac")),
    ],
)
def test_sound_that_starts_late_is_where_the_file_has_it(tmp_path, name, options):
    video = () if name == "alone.mka" else VIDEO
    maps = () if name == "alone.mka" else ("-map", "0:v", "-map", "1:a")
    path = tmp_path / name
    run_ffmpeg(*video, "-itsoffset", "2", "-i", source(tmp_path), *maps, *options, path)
    found = load(path)
    late = delay(speech_like(), found) / SAMPLE_RATE
    assert late == pytest.approx(2.0, abs=0.1)
    assert len(found) / SAMPLE_RATE == pytest.approx(4.0, abs=0.15)
    assert not np.abs(found[: int(1.8 * SAMPLE_RATE)]).any()
    np.testing.assert_array_equal(np.concatenate(list(reader.blocks(path))), found)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "flac"), ("a.mp4", "aac"), ("a.ts", "mp2"), ("a.webm", "libopus")]
)
def test_a_gap_is_silence(tmp_path, name, codec):
    path = tmp_path / name
    cut = ("-af", "aselect='lt(t,0.5)+gt(t,1.5)'")
    run_ffmpeg("-i", source(tmp_path), *cut, "-c:a", codec, path)
    found = load(path)
    assert len(found) / SAMPLE_RATE == pytest.approx(2.0, abs=0.15)
    assert not np.abs(found[10000:22000]).any()
    shift = delay(speech_like(), found)
    assert abs(shift) < 1200
    tail = slice(26000, 30000)
    assert similarity(speech_like()[tail], found[26000 + shift : 30000 + shift]) > 0.9


@pytest.mark.parametrize("name", ["a.mka", "a.m4a", "a.webm", "a.aac"])
def test_no_sample_is_moved_where_the_times_are_plain(tmp_path, name):
    """As ffmpeg gives them without a look at the times."""
    path = tmp_path / name
    run_ffmpeg("-i", source(tmp_path), path)
    run_ffmpeg("-i", path, "-c:a", "pcm_f32le", tmp_path / "plain.wav")
    np.testing.assert_array_equal(load(path), load(tmp_path / "plain.wav"))


def test_times_that_overlap_drop_nothing(tmp_path):
    path = tmp_path / "a.mka"
    run_ffmpeg("-i", source(tmp_path), "-c:a", "flac", tmp_path / "whole.mka")
    run_ffmpeg("-i", tmp_path / "whole.mka", "-c", "copy", "-bsf:a", "setts=ts=TS/2", path)
    assert len(load(path)) == 32000


# --- other ----------------------------------------------------------------------------------


def test_a_stream_that_only_ffmpeg_reads(tmp_path):
    path = tmp_path / "a.m4a"  # it has its index at its end: one has to seek
    run_ffmpeg("-i", source(tmp_path), path)
    found = np.concatenate(list(reader.blocks(io.BytesIO(path.read_bytes()))))
    np.testing.assert_array_equal(found, load(path))


def test_a_file_that_announces_more_than_there_is(tmp_path):
    path = tmp_path / "a.mka"
    run_ffmpeg("-i", source(tmp_path), path)
    data = path.read_bytes()
    at = data.index(b"\x44\x89\x88") + 3  # Duration, in milliseconds
    path.write_bytes(data[:at] + struct.pack(">d", 5000.0) + data[at + 8 :])
    refused(path, "cut short", "of 5.00 s are there")


@pytest.mark.parametrize("size", [1000, 1 << 18])
def test_whatever_the_size_of_blocks(tmp_path, monkeypatch, size):
    path = tmp_path / "a.mka"
    run_ffmpeg("-i", source(tmp_path), "-ac", "2", path)
    expected = load(path)
    monkeypatch.setattr(stream, "BLOCK_SAMPLES", size)
    np.testing.assert_allclose(load(path), expected, atol=1e-6)


def test_message_without_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    message = refused(text(tmp_path), "libsndfile does not know the codec (Format not recognised)")
    assert message.endswith("; install ffmpeg, or convert it to wav or flac")


def fake_ffmpeg(folder: Path, body: str) -> str:
    program = folder / "ffmpeg"
    program.write_text(f"#!{sys.executable}\nimport os, struct, sys, time\n{body}\n")
    program.chmod(0o755)
    return str(program)


AU = "os.write(1, struct.pack('>4s5I', b'.snd', 24, 2**32 - 1, 6, 16000, 1) + bytes(80000))"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (f"{AU}; sys.exit(1)", ["exit status 1"]),
        (
            f"{AU}; os.write(2, b'[aac @ 0x1] [error] broken\\n[info] more\\n')",
            ["(ffmpeg: broken)"],
        ),
        (f"{AU}; time.sleep(60)", ["gave no output for 1 s"]),
        ("time.sleep(60)", ["gave no output for 1 s"]),
        ("sys.exit(0)", ["exit status 0"]),
    ],
    ids=["status", "complaint", "stuck", "silent", "nothing"],
)
def test_ffmpeg_that_fails_midway_gives_no_part(tmp_path, monkeypatch, body, words):
    program = fake_ffmpeg(tmp_path, body)
    monkeypatch.setattr(ffmpeg, "program", lambda: program)
    if "sleep" in body:
        monkeypatch.setattr(ffmpeg, "_SECONDS", 1.0)
    refused(text(tmp_path), *words)


def test_ffmpeg_is_called_safely(tmp_path, monkeypatch):
    program = fake_ffmpeg(tmp_path, f"open('seen', 'w').write('\\n'.join(sys.argv)); {AU}")
    monkeypatch.setattr(ffmpeg, "program", lambda: program)
    monkeypatch.chdir(tmp_path)
    Path("-y.m4a").write_text("something")
    assert len(load("-y.m4a")) == 20000
    seen = Path("seen").read_text().splitlines()
    assert "-nostdin" in seen and "-xerror" in seen
    assert seen[seen.index("-i") + 1] == "file:-y.m4a"
    assert seen[seen.index("-protocol_whitelist") + 1] == "file,pipe"


@pytest.mark.parametrize("name", ["a.m4a", "a.wma", "a.mka", "a.webm", "-a.m4a", "http:a.m4a"])
def test_ffmpeg_reads_the_rest(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stereo = np.stack([speech_like(), 0.5 * speech_like()], 1)
    run_ffmpeg("-i", write(Path("in.wav"), stereo), f"file:{name}")
    waveform = load(name)
    assert waveform.dtype == np.float32
    assert abs(len(waveform) - SECONDS * SAMPLE_RATE) < 0.15 * SAMPLE_RATE  # the codec's padding
    late = delay(speech_like(), waveform)
    assert abs(late) < 2400
    assert similarity(speech_like(), waveform, late) > 0.97
    # Channels are averaged, not added: 0.75 of the left one.
    assert np.std(waveform) == pytest.approx(0.75 * np.std(speech_like()), rel=0.1)


@pytest.mark.parametrize("name", ["a.m4a", "fast.m4a", "a.mka", "a.webm", "a.wma"])
def test_ffmpeg_gives_no_part_of_a_truncated_file(tmp_path, name):
    start = ["-movflags", "+faststart"] if name == "fast.m4a" else []
    run_ffmpeg("-i", write(tmp_path / "in.wav"), *start, tmp_path / name)
    refused(truncated(tmp_path / name, 0.8), "ffmpeg")


def test_m4a_without_ffmpeg(tmp_path, monkeypatch):
    run_ffmpeg("-i", write(tmp_path / "in.wav"), tmp_path / "a.m4a")
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    refused(tmp_path / "a.m4a", "install ffmpeg")
