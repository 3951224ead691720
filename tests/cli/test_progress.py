"""A failure stays with its file; what is said of the progress is true."""

import io
import re
import sys
from pathlib import Path

import pytest
import torch

from las.cli.progress import Report, transcripts
from las.transcription.transcriber import Failure, Transcript

PATHS = [Path(f"{index}.wav") for index in range(100)]


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Fake:
    """Decodes batches of 8 files of a second each, and fails as told."""

    def __init__(self, fails=(), error=None, size=8):
        self.fails = {Path(f"{index}.wav") for index in fails}
        self.error = error or RuntimeError("CUDA error:\nan illegal access")
        self.size, self.calls = size, 0

    def files(self, paths, *, batch_size=None, progress=None):
        size = min(self.size, batch_size or self.size)
        for start in range(0, len(paths), size):
            batch = paths[start : start + size]
            self.calls += 1
            if self.fails & set(batch):
                raise self.error
            progress(float(start + len(batch)))
            for path in batch:
                yield Transcript(path, 1.0, [])


@pytest.mark.parametrize("fails", [(), (0,), (99,), (3, 4, 40), range(0, 100, 7), range(100)])
def test_what_fails_is_found_and_the_others_go_on(fails):
    fake = Fake(fails)
    with Report(bar=False) as report:
        results = list(transcripts(fake, PATHS, None, report))
    assert [result.path for result in results] == PATHS
    failed = [i for i, result in enumerate(results) if isinstance(result, Failure)]
    assert failed == list(fails)
    assert report.seconds == 100 - len(failed)
    for result in results:
        if isinstance(result, Failure):
            assert result.reason.startswith(f"{result.path}: decoding failed (RuntimeError: CUDA")
            assert len(result.reason.splitlines()) == 1 and "try it alone" in result.reason


def test_after_a_failure_batches_come_back():
    fake = Fake([0])
    with Report(bar=False) as report:
        list(transcripts(fake, PATHS, None, report))
    # The batch, the file alone, and the other 99 in batches of 8 again.
    assert fake.calls == 1 + 1 + 13


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")]
)
def test_memory(error):
    with Report(bar=False) as report:
        results = list(transcripts(Fake([5], error), PATHS, None, report))
    assert "not enough memory" in results[5].reason
    assert sum(isinstance(result, Failure) for result in results) == 1


@pytest.mark.parametrize("error", [TypeError("x"), AssertionError("x"), KeyboardInterrupt()])
def test_errors_of_the_program_and_interrupts_are_not_hidden(error):
    done = []
    with Report(bar=False) as report, pytest.raises(type(error)):
        done.extend(transcripts(Fake([50], error), PATHS, None, report))
    assert report.seconds == 48


def test_the_size_of_batches_is_passed_on():
    fake = Fake()
    with Report(bar=False) as report:
        list(transcripts(fake, PATHS, 2, report))
    assert fake.calls == 50


def test_the_summary(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    with Report(bar=True) as report:
        report.expect(4)
        report.begin()
        clock[0] += 5.0
        report.heard(150.0)
        report.settle()
        report.heard(50.0)
        report.finished()
        report.finished()
        report.error("x.wav: no such file")
        report.skip(1)
    assert report.summary() == (
        "2 files, 3.3 min of audio in 5.0 s, 40x real time; 1 skipped; 1 failed"
    )
    # Not a terminal: no bar.
    assert capsys.readouterr() == ("", "error: x.wav: no such file\n")
    clock[0] = 100.0
    with Report(bar=True) as report:
        report.begin()
        report.finished()
        report.heard(7200.0)
        clock[0] += 90.0
    assert report.summary() == "1 file, 2.0 h of audio in 1.5 min, 80x real time"


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Report(bar=True) as report:
        report.expect(3)
        report.heard(90.0)
        report.finished()
        report.error("[bold]x[/bold].wav: " + "a long reason " * 20 + "ends")
        print("text")
    shown = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "transcribing" in shown and "2/3" in shown and "x real time" in shown
    assert "error: [bold]x[/bold].wav: " + "a long reason " * 20 + "ends\n" in shown
    assert capsys.readouterr().out == "text\n"  # standard output is left alone


def test_no_bar_where_texts_are_printed_on_the_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Report(bar=False) as report:
        report.expect(1)
        report.finished()
        report.say("a line")
    assert terminal.getvalue() == "a line\n"
