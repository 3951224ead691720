"""`las transcribe` of damaged, empty and unusual files: one line for each that fails."""

import numpy as np
import pytest
import soundfile
from speech import (
    RATE,
    error_line,
    whistle,
)

from tests.cli.files import recording, text_file


def nan(path):
    samples = whistle("ABE CAB")
    samples[1000:1010] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def cut_flac(path):
    recording(path, "FADE CAB DECAF " * 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def clip(path):
    soundfile.write(path, np.zeros(RATE // 100, np.float32), RATE)


BAD = {
    "text.wav": (text_file, "not an audio file"),
    "empty.wav": (lambda path: path.touch(), "empty"),
    "folder.wav": (lambda path: path.mkdir(), "no audio files in this folder"),
    "clip.wav": (clip, "10 ms"),
    "nan.wav": (nan, "NaN"),
    "missing.wav": (lambda path: None, "no such file"),
    "cut.flac": (cut_flac, "cut short"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line(las, tmp_path, name):
    make, reason = BAD[name]
    make(tmp_path / name)
    status, out, err = las(tmp_path / name)
    line = error_line(err)
    assert status == 1 and out == ""
    assert str(tmp_path / name) in line
    assert reason in line or (name == "cut.flac" and ("decoded" in line or "cut short" in line))


def test_good_files_beside_bad_ones_are_transcribed(las, tmp_path):
    good = [recording(tmp_path / "a.wav"), recording(tmp_path / "b.flac", "FADE")]
    for name, (make, _) in BAD.items():
        make(tmp_path / name)
    bad = [tmp_path / name for name in BAD]
    status, out, err = las(good[0], *bad, good[1])
    assert status == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(path) for path in good]
    *lines, last = err.splitlines()
    assert len(lines) == len(bad) and all(line.startswith("error: ") for line in lines)
    assert all(any(str(path) in line for line in lines) for path in bad)
    assert last.startswith("2 files, ") and last.endswith(f"; {len(bad)} failed")
    texts = []
    for path in good:
        status, text, err = las(path)
        assert (status, err) == (0, "")
        texts.append(text)
    assert [line.split("\t")[1] + "\n" for line in out.splitlines()] == texts


def test_eight_channels_at_96_khz(las, tmp_path):
    plain = recording(tmp_path / "plain.wav", rate=96000, subtype="FLOAT")
    wide = recording(tmp_path / "wide.wav", rate=96000, channels=8, subtype="FLOAT")
    status, out, err = las(wide)
    assert (status, err) == (0, "") and len(out.splitlines()) == 1
    assert las(plain)[1] == out


def test_a_picture_of_the_attention(las, tmp_path):
    status, _, _ = las(
        recording(tmp_path / "a.wav"),
        "--attention",
        tmp_path / "a.png",
    )
    assert status == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
