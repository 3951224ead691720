"""What is told of a run is true, on a terminal and elsewhere."""

import io
import re
import sys
from pathlib import Path

from las.cli.transcribe.inputs import Source
from las.cli.transcribe.plan import Plan
from las.cli.transcribe.progress import Progress
from las.errors import LASError
from las.transcription.transcript import Failure, Transcript

SOURCES = [Source(Path(f"{name}.wav"), Path(name)) for name in "abc"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def transcript(*notes):
    return Transcript(Path("a.wav"), 1.0, [], list(notes))


def test_the_summary(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    with Progress(bar=True) as progress:
        plan = Plan(SOURCES[:2], SOURCES[2:], [LASError("x.wav: no such file")], ["a note"])
        progress.planned(plan)
        progress.started()
        clock[0] += 5.0
        progress.audio(150.0)
        progress.recognised(SOURCES[0], transcript("it is silent"))
        progress.written(None)
        progress.audio(200.0)
        progress.recognised(SOURCES[1], transcript())
        progress.written(None)
    expected = "2 files, 3.3 min of audio in 5.0 s, 40x real time; 1 skipped; 1 failed"
    assert progress.summary() == expected
    progress.finished()
    # Not a terminal: no bar.
    assert capsys.readouterr() == (
        "",
        f"a note\nerror: x.wav: no such file\nwarning: a.wav: it is silent\n{expected}\n",
    )
    clock[0] = 100.0
    with Progress(bar=True) as progress:
        progress.started()
        progress.written(None)
        progress.audio(7200.0)
        clock[0] += 90.0
    assert progress.summary() == "1 file, 2.0 h of audio in 1.5 min, 80x real time"


def test_files_that_fail_are_counted_once(capsys):
    with Progress(bar=False) as progress:
        progress.planned(Plan(SOURCES, [], [], []))
        progress.recognised(SOURCES[0], Failure(Path("a.wav"), "a.wav: damaged"))
        progress.recognised(SOURCES[1], transcript())
        progress.written(Failure(Path("b.wav"), "out/b.txt: Is a directory"))
        progress.interrupted(resumable=True)
    assert (progress.files, progress.done, progress.failed) == (3, 0, 2)
    assert capsys.readouterr().err.splitlines() == [
        "error: a.wav: damaged",
        "error: out/b.txt: Is a directory",
        "interrupted: 0 of 3 files are done; --resume continues with the others",
    ]


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    reason = "[bold]x[/bold].wav: " + "a long reason " * 20 + "ends"
    with Progress(bar=True) as progress:
        progress.planned(Plan(SOURCES, [], [], []))
        progress.audio(90.0)
        progress.written(None)
        progress.recognised(SOURCES[1], Failure(Path("x.wav"), reason))
        print("text")
    shown = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "transcribing" in shown and "2/3" in shown and "x real time" in shown
    assert f"error: {reason}\n" in shown
    assert capsys.readouterr().out == "text\n"  # standard output is left alone


def test_no_bar_where_texts_are_printed_on_the_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(bar=False) as progress:
        progress.planned(Plan(SOURCES, [], [], ["a line"]))
        progress.written(None)
    assert terminal.getvalue() == "a line\n"
