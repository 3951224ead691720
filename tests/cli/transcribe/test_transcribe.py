"""`las transcribe`: many inputs, files of every format, failures, interrupts and resuming."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pysrt
import pytest
import soundfile
import webvtt
from speech import RATE, error_line, full_disk, run_main, small_model, start, whistle

from las.transcription import transcriber
from las.transcription.writers import FORMATS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model().save_pretrained(folder)
    return folder


@pytest.fixture
def las(monkeypatch, capsys, model, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return run_main(monkeypatch, capsys, "transcribe", "--model", model, *arguments)

    return run


def recording(path, text="ABE CAB", repeats=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.tile(whistle(text), repeats), RATE)
    return path


@pytest.fixture
def calls(tmp_path):
    """A folder of recordings in folders; nothing but the audio is to be transcribed."""
    for name in ("calls/x.wav", "calls/monday/x.flac", "calls/monday/y.ogg"):
        recording(tmp_path / name, "FADE CAB" if "y" in name else "ABE CAB")
    (tmp_path / "calls/notes.txt").write_text("not audio")
    return tmp_path / "calls"


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def pipe(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# --- what is written ------------------------------------------------------------------------


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


def tree_of_calls():
    return ["calls/monday/x.flac", "calls/monday/y.ogg", "calls/notes.txt", "calls/x.wav"]


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


# --- standard input -------------------------------------------------------------------------


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


# --- what goes wrong ------------------------------------------------------------------------


def test_bad_inputs_are_reported_and_the_others_go_on(las, calls, tmp_path):
    (calls / "bad.wav").write_text("a text\n" * 100)
    (tmp_path / "empty").mkdir()
    status, out, err = las("calls", "gone.wav", "*.none", "empty", "-o", "out", "-f", "vtt")
    assert (status, out) == (1, "")
    *errors, summary = err.splitlines()
    assert sorted(line.split(": ")[1] for line in errors) == [
        "*.none",
        "calls/bad.wav",
        "empty",
        "gone.wav",
    ]
    assert all(line.startswith("error: ") for line in errors)
    assert summary.startswith("3 files, ") and summary.endswith("; 4 failed")
    assert tree(tmp_path / "out") == ["monday/x.vtt", "monday/y.vtt", "x.vtt"]


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, OSError])
def test_an_error_in_decoding_is_one_line(las, calls, monkeypatch, kind):
    n_best = transcriber.Transcriber.n_best
    size = len(soundfile.read(calls / "x.wav")[0])

    def fail(self, waveforms):
        if any(len(waveform) == size for waveform in waveforms):
            raise kind("no kernel\nimage")
        return n_best(self, waveforms)

    monkeypatch.setattr(transcriber.Transcriber, "n_best", fail)
    status, out, err = las("calls/x.wav", "calls/monday/y.ogg")
    assert status == 1 and out.startswith("calls/monday/y.ogg\t")
    line, summary = err.splitlines()
    assert line.startswith(
        f"error: calls/x.wav: decoding failed ({kind.__name__}: no kernel image)"
    )
    assert summary.endswith("; 1 failed")


def test_names_may_be_as_long_as_the_file_system_takes(las, calls, tmp_path):
    long = recording(calls / ("字" * 82 + "a.wav"))  # 251 bytes, as its result has
    status, _, err = las(long, calls / "x.wav", "-f", "txt", "-o", "out", "--resume")
    assert status == 0 and err.startswith("2 files, ")
    assert tree(tmp_path / "out") == ["x.txt", long.with_suffix(".txt").name]
    for name in ("字" * 82 + "a.json", "b" * 300):
        status, _, err = las(name, calls / "x.wav", "-f", "json", "-o", "out", "--resume")
        assert status == 1 and err.splitlines()[0].startswith(f"error: {name}: ")


def test_a_result_that_cannot_be_written_does_not_end_the_others(las, calls, tmp_path):
    (tmp_path / "out" / "x.txt").mkdir(parents=True)
    (tmp_path / "out" / "monday").touch()
    recording(calls / "z.wav")
    status, _, err = las("calls", "-f", "txt", "-o", "out")
    assert status == 1 and tree(tmp_path / "out") == ["monday", "z.txt"]
    *errors, summary = err.splitlines()
    assert [line.split(": ")[1] for line in errors] == ["out/monday", "out/monday", "out/x.txt"]
    assert summary.startswith("1 file, ") and summary.endswith("; 3 failed")


def test_a_full_disk_names_the_result_and_ends_the_run(las, calls, tmp_path, monkeypatch):
    assert las("calls", "-f", "txt", "-o", "out")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    with full_disk(2):
        status, _, err = las("calls", "-f", "txt", "-o", "out")
    assert status == 1 and "error: out/x.txt: File too large\n" in err

    def full(self, *_, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        status, _, err = las("calls", "-f", "txt", "-o", "out")
    assert (status, error_line(err)) == (1, "error: out/monday/x.txt: No space left on device")
    assert {path: path.read_bytes() for path in before} == before
    assert tree(tmp_path / "out") == ["monday/x.txt", "monday/y.txt", "x.txt"]


def test_what_a_folder_has_beside_audio_is_said(las, calls):
    (calls / "x.pdf").touch()
    (calls / "again").symlink_to("monday")
    status, out, err = las("calls")
    assert status == 0 and len(out.splitlines()) == 3
    line, _ = err.splitlines()
    assert line == (
        "calls: passed over 1 link to a folder that is searched anyway (again), 1 not audio by its "
        "name (x.pdf)"
    )


def test_results_never_replace_each_other(las, calls, tmp_path):
    status, out, err = las("calls/x.wav", "calls/monday/x.flac", "--format", "txt")
    assert (status, out) == (1, "")
    assert "calls/x.wav" in error_line(err) and "calls/monday/x.flac" in error_line(err)
    assert tree(tmp_path) == tree_of_calls()
    assert las("calls/x.wav", "calls/monday/x.flac")[0] == 0  # printed, there is no harm


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resume"], "--resume"),
        (["--word-timestamps"], "--format json"),
        (["--word-timestamps", "--format", "srt"], "--format json"),
        (["--n-best", "2", "--beam", "2", "--format", "txt"], "--n-best"),
        (["-o", "calls/x.wav"], "calls/x.wav"),
        (["-o", "calls/x.wav/below"], "calls/x.wav"),
    ],
)
def test_options_that_do_not_go_together(las, calls, tmp_path, arguments, says):
    status, out, err = las(calls / "x.wav", *arguments)
    assert (status, out) == (1, "") and says in error_line(err)
    assert tree(tmp_path) == tree_of_calls()


def test_a_format_that_is_none(las, calls):
    status, _, err = las(calls / "x.wav", "--format", "docx")
    assert status == 2 and "docx" in err


# --- interrupts and resuming ----------------------------------------------------------------


def test_resume_does_what_is_missing(las, calls, tmp_path):
    assert las("calls", "-o", "out")[0] == 0
    (tmp_path / "out/x.srt").unlink()
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in tree(tmp_path / "out")}
    status, _, err = las("calls", "-o", "out", "--resume")
    assert status == 0 and err.startswith("1 file, ") and err.endswith("; 2 skipped\n")
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in tree(tmp_path / "out")}
    assert {name for name in after if after[name] != before.get(name)} == {
        f"x.{kind}" for kind in FORMATS
    }
    status, _, err = las("calls", "-o", "out", "--resume", "--model", tmp_path / "none")
    assert (status, err) == (0, "0 files; 3 skipped\n")  # nothing is left: no model is needed


def test_an_interrupt_keeps_what_is_finished(las, calls, tmp_path, monkeypatch):
    files = transcriber.Transcriber.files

    def interrupted(self, paths, **settings):
        yield next(files(self, paths, **settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(transcriber.Transcriber, "files", interrupted)
    status, out, err = las("calls", "-o", "out", "--format", "txt")
    assert (status, out) == (130, "")
    assert err == "interrupted: 1 of 3 files are done; --resume goes on with the others\n"
    assert tree(tmp_path / "out") == ["monday/x.txt"]


def test_sigterm_ends_as_an_interrupt_does(las, calls, tmp_path, monkeypatch):
    files = transcriber.Transcriber.files

    def ended(self, paths, **settings):
        yield next(files(self, paths, **settings))
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(transcriber.Transcriber, "files", ended)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    pipe(monkeypatch, (calls / "x.wav").read_bytes())
    status, out, err = las("-", "calls", "-o", "out", "--format", "txt")
    assert (status, out) == (143, "")
    assert err == "interrupted: 1 of 4 files are done; --resume goes on with the others\n"
    assert tree(tmp_path / "out") == ["stdin.txt"] and tree(tmp_path / "tmp") == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_while_writing_leaves_no_part(las, calls, tmp_path, monkeypatch):
    write_text = Path.write_text

    def interrupted(self, text, **settings):
        write_text(self, text[: len(text) // 2], **settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", interrupted)
    status, _, err = las(calls / "x.wav", "-o", "out", "--format", "json")
    assert status == 130 and err.startswith("interrupted: 0 of 1 ")
    assert tree(tmp_path / "out") == []


def test_a_process_that_is_interrupted_and_resumed(model, tmp_path):
    for index in range(40):
        recording(tmp_path / "in" / f"{index:02d}.wav", repeats=4)
    command = ("transcribe", "--model", model, tmp_path / "in", "-o", tmp_path / "out")
    command += ("--batch-size", 1, "--threads", 1)
    process = start(*command)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("out/*.json")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    (line,) = err.splitlines()
    assert line.startswith("interrupted: ")
    finished = {path.stem for path in tmp_path.glob("out/*.json")}
    assert 0 < len(finished) < 40
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*")}
    assert not list(tmp_path.glob("out/.*"))
    for path in kept:
        assert path.read_bytes()
    process = start(*command, "--resume")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0
    # What was interrupted between two of its formats is done again.
    whole = {
        stem for stem in finished if all((tmp_path / f"out/{stem}.{k}") in kept for k in FORMATS)
    }
    assert f"; {len(whole)} skipped" in err and len(finished) - len(whole) <= 1
    assert len(list(tmp_path.glob("out/*"))) == 40 * len(FORMATS)
    for path, changed in kept.items():
        assert path.stem not in whole or path.stat().st_mtime_ns == changed


# --- other outputs --------------------------------------------------------------------------


def test_the_picture_is_of_the_first_file_that_can_be_read(las, calls, tmp_path):
    status, out, _ = las("gone.wav", "calls", "--attention", "a.png")
    assert status == 1 and len(out.splitlines()) == 3
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_n_best_are_printed_with_their_scores(las, calls):
    status, out, _ = las("calls/x.wav", "--beam", 3, "--n-best", 2, "--search", "max_steps=6")
    assert status == 0
    scores = [float(line.split("\t")[0]) for line in out.splitlines()]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)
