"""`las transcribe`: many inputs, files of every format, standard input, other outputs."""

import json
import os
import subprocess
import sys

import numpy as np
import pysrt
import pytest
import soundfile
import webvtt
from speech import RATE, error_line, whistle

from las.transcription.writers import FORMATS
from tests.cli.transcribe.files import pipe, recording, tree, tree_of_calls


def test_every_format_of_a_folder(las, calls, tmp_path):
    status, out, err = las("calls", "--format", "all", "-o", "out", "--word-timestamps")
    assert (status, out) == (0, "")
    assert err.startswith("3 files, ") and len(err.splitlines()) == 1 and "real time" in err
    names = ("x", "monday/x", "monday/y")
    assert tree(tmp_path / "out") == sorted(f"{name}.{kind}" for name in names for kind in FORMATS)
    for name in names:
        path = tmp_path / "out" / name
        whole = json.loads(path.with_suffix(".json").read_text())
        texts = [segment["text"] for segment in whole["segments"]]
        assert texts and whole["text"] == " ".join(texts)
        assert path.with_suffix(".txt").read_text().splitlines() == texts
        srt = pysrt.open(path.with_suffix(".srt"), error_handling=pysrt.ERROR_RAISE)
        vtt = webvtt.read(path.with_suffix(".vtt"))
        assert [" ".join(item.text.split("\n")) for item in srt] == texts
        assert [" ".join(caption.text.split("\n")) for caption in vtt] == texts
        rows = path.with_suffix(".tsv").read_text().splitlines()
        assert [row.split("\t")[2] for row in rows[1:]] == texts
        words = [word["word"] for segment in whole["segments"] for word in segment["words"]]
        assert words == whole["text"].split()
        assert whole["segments"][-1]["end"] <= whole["duration"]
    status, out, _ = las("calls/monday/y.ogg")
    assert out.split() == whole["text"].split()


def test_one_format_here(las, calls, tmp_path):
    status, out, _ = las(calls / "x.wav", "--format", "json")
    assert (status, out) == (0, "")
    assert tree(tmp_path) == [*tree_of_calls(), "x.json"]
    assert "words" not in json.loads((tmp_path / "x.json").read_text())["segments"][0]


def test_a_folder_alone_means_all_formats(las, calls, tmp_path):
    assert las(calls / "x.wav", "--output-dir", tmp_path / "deep" / "out")[0] == 0
    assert tree(tmp_path / "deep" / "out") == sorted(f"x.{kind}" for kind in FORMATS)


def test_texts_are_printed_after_their_names(las, calls):
    status, out, err = las("calls/**/x.*", calls / "monday" / "y.ogg")
    assert status == 0
    lines = [line.split("\t") for line in out.splitlines()]
    names = ["calls/monday/x.flac", "calls/x.wav", str(calls / "monday" / "y.ogg")]
    assert [name for name, _ in lines] == names
    assert err.startswith("3 files, ")
    status, out, err = las(calls / "x.wav")
    assert (status, out, err) == (0, lines[1][1] + "\n", "")


def test_names_that_would_break_a_line(las, tmp_path):
    for name in ("a\nb.wav", "a\tb.wav", "plain.wav"):
        recording(tmp_path / "in" / name)
    status, out, _ = las("in")
    assert status == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert [name for name, _ in lines] == [r"'in/a\tb.wav'", r"'in/a\nb.wav'", "in/plain.wav"]


def test_a_pipe_that_is_named_as_a_file(las, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    status, _, err = las("fifo")
    assert status == 1 and "pipe it into `las transcribe -`" in error_line(err)


def test_what_a_user_should_know_is_a_warning(las, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "soft.wav", 1e-4 * whistle("ABE"), RATE, subtype="FLOAT")
    recording(tmp_path / "good.wav")
    status, out, err = las("silent.wav", "soft.wav", "good.wav")
    assert status == 0 and len(out.splitlines()) == 3
    first, second, summary = err.splitlines()
    assert first == "warning: silent.wav: it is silent: all of its samples are 0"
    assert second.startswith("warning: soft.wav: it is too quiet to be heard: its peak is at -8")
    assert summary.startswith("3 files")


def test_the_size_of_batches_changes_nothing(las, calls):
    texts = {las("calls", "--batch-size", size)[1] for size in (1, 2, 3)}
    assert len(texts) == 1 and las("calls")[1] in texts


def test_names_of_any_bytes(model, tmp_path):
    name = os.fsencode(tmp_path / "a") + b"\xff.wav"
    recording(tmp_path / "a.wav").rename(os.fsdecode(name))
    command = [sys.executable, "-m", "las", "transcribe", "--model", model]
    done = subprocess.run([*command, name, name + b"x"], capture_output=True)
    assert done.returncode == 1
    assert done.stdout.startswith(name + b"\t") and done.stdout.count(b"\n") == 1
    error, summary = done.stderr.splitlines()
    assert (
        error.startswith(b"error: ")
        and b"no such file" in error
        and summary.startswith(b"1 file, ")
    )


def test_standard_input(las, calls, tmp_path, monkeypatch):
    data = (calls / "monday" / "x.flac").read_bytes()
    text = las(calls / "monday" / "x.flac")[1]
    pipe(monkeypatch, data)
    assert las("-") == (0, text, "")
    pipe(monkeypatch, data)
    status, out, err = las("-", "--format", "srt")
    assert (status, err) == (0, "")
    assert " ".join(pysrt.from_string(out).text.split()) == text.strip()
    assert tree(tmp_path) == tree_of_calls()
    pipe(monkeypatch, data)
    assert las("-", "--format", "txt", "-o", "out")[0] == 0
    assert tree(tmp_path / "out") == ["stdin.txt"]
    pipe(monkeypatch, data)
    out = las("-", calls / "x.wav")[1]
    assert [line.split("\t")[0] for line in out.splitlines()] == ["stdin", str(calls / "x.wav")]


@pytest.mark.parametrize("data", [b"", b"a text\n" * 100])
def test_standard_input_that_is_not_audio(las, monkeypatch, data):
    pipe(monkeypatch, data)
    status, out, err = las("-")
    assert status == 1 and out == "" and error_line(err).startswith("error: stdin: ")


def test_the_picture_is_of_the_first_file_that_can_be_read(las, calls, tmp_path):
    status, out, _ = las("gone.wav", "calls", "--attention", "a.png")
    assert status == 1 and len(out.splitlines()) == 3
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_n_best_are_printed_with_their_scores(las, calls):
    status, out, _ = las("calls/x.wav", "--beam", 3, "--n-best", 2, "--search", "max_steps=6")
    assert status == 0
    scores = [float(line.split("\t")[0]) for line in out.splitlines()]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)
