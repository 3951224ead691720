"""`las transcribe`: interrupts leave whole results, and --resume does the rest."""

import os
import signal
import tempfile
import time
from pathlib import Path

from speech import start

from las.transcription import transcriber
from las.transcription.writers import FORMATS
from tests.cli.transcribe.files import pipe, recording, tree


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
    assert err == "interrupted: 1 of 3 files are done; --resume continues with the others\n"
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
    assert err == "interrupted: 1 of 4 files are done; --resume continues with the others\n"
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
