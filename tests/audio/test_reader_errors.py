"""Every bad file gives one line with a cure."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from las.audio import containers, ffmpeg, sndfile
from las.audio.reader import AudioError, info, load
from tests.audio.test_reader import FORMATS, refused, speech_like, text, truncated, write


def missing(folder: Path) -> Path:
    return folder / "none.wav"


def directory(folder: Path) -> Path:
    (folder / "dir.wav").mkdir()
    return folder / "dir.wav"


def empty(folder: Path) -> Path:
    (folder / "a.wav").touch()
    return folder / "a.wav"


def text_as_mp3(folder: Path) -> Path:
    return text(folder).rename(folder / "a.mp3")


def playlist(folder: Path) -> Path:
    write(folder / "secret.wav")
    (folder / "a.ffconcat").write_text("ffconcat version 1.0\nfile secret.wav\n")
    return folder / "a.ffconcat"  # ffmpeg would follow it


def raw(folder: Path) -> Path:
    (folder / "a.raw").write_bytes(speech_like().tobytes())
    return folder / "a.raw"


def short(folder: Path) -> Path:
    return write(folder / "a.wav", speech_like(seconds=0.01))


def no_samples(folder: Path) -> Path:
    return write(folder / "a.wav", np.zeros(0, np.float32))


def not_numbers(folder: Path) -> Path:
    samples = speech_like()
    samples[[5, 900, 20000]] = np.nan, np.inf, -np.inf
    return write(folder / "a.wav", samples, subtype="FLOAT")


def huge_numbers(folder: Path) -> Path:
    samples = speech_like().astype(np.float64)
    samples[7] = 1e300
    return write(folder / "a.wav", samples, subtype="DOUBLE")


def infinities_that_cancel(folder: Path) -> Path:
    samples = np.stack([speech_like(), speech_like()], 1)
    samples[3] = np.inf, -np.inf
    return write(folder / "a.wav", samples, subtype="FLOAT")


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.wav")
    return folder / "a.wav"


def header_only_flac(folder: Path) -> Path:
    return truncated(write(folder / "a.flac"), 0.01)


def null_byte(folder: Path) -> Path:
    return folder / "a\0.wav"


BAD = {
    missing: ["no such file", "check the path"],
    directory: ["is a directory"],
    empty: ["is empty"],
    text: ["not an audio file", "convert it to wav or flac"],
    text_as_mp3: ["not an audio file"],
    playlist: ["not an audio file"],
    raw: ["not an audio file"],
    short: ["10 ms", "at least 50 ms"],
    no_samples: ["has no samples"],
    not_numbers: ["has 3 samples that are NaN, infinite"],
    huge_numbers: ["has 1 samples"],
    infinities_that_cancel: ["has 2 samples"],
    pipe: ["not a regular file"],
    header_only_flac: ["cannot be decoded"],
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_bad_file(tmp_path, make):
    refused(make(tmp_path), *BAD[make])


@pytest.mark.parametrize("make", [missing, directory, empty, text, raw], ids=lambda f: f.__name__)
def test_info_of_a_bad_file(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(AudioError) as caught:
        info(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1


def test_name_with_a_null_byte_or_a_newline_stays_on_one_line(tmp_path):
    for path in (null_byte(tmp_path), tmp_path / "two\nlines.wav"):
        with pytest.raises(AudioError) as caught:
            load(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("part", [0.5, 0.9])
@pytest.mark.parametrize("name", FORMATS)
def test_truncated_file(tmp_path, name, part, monkeypatch):
    path = truncated(write(tmp_path / name, **FORMATS[name][0]), part)
    # What libsndfile recognises is not handed on: ffmpeg would make do with a part.
    monkeypatch.setattr(ffmpeg, "open_stream", lambda *_: pytest.fail("ffmpeg was asked"))
    refused(path, "fetch it again")


def test_failure_after_opening_is_not_handed_on(tmp_path, monkeypatch):
    def fails(_):
        yield speech_like()[:, None]
        raise soundfile.LibsndfileError(4)

    monkeypatch.setattr(sndfile, "_blocks", fails)
    monkeypatch.setattr(ffmpeg, "open_stream", lambda *_: pytest.fail("ffmpeg was asked"))
    refused(write(tmp_path / "a.wav"), "cannot be decoded")


def test_a_disk_that_fails(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(containers, "parts", fails)
    refused(write(tmp_path / "a.wav"), "cannot be read (Input/output error)")


def test_flac_damaged_in_the_middle(tmp_path):
    path = write(tmp_path / "a.flac")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    refused(path, "cannot be decoded")


def test_permission_denied(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav")
    if os.geteuid() == 0:  # root reads everything

        def denied(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
    else:
        path.chmod(0)
    refused(path, "permission denied", "make it readable")
