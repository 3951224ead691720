"""Standard streams that are closed, broken or full: one line of error, the rest is done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from speech import RATE, error_line, small_model, whistle

from las import standard_streams
from las.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standard")
    small_model().save_pretrained(folder / "model")
    soundfile.write(folder / "a.wav", whistle("ABE CAB"), RATE)
    return folder


def run(folder, arguments, streams):
    """The command with some of its streams closed, as `>&-` of a shell does."""
    line = f'exec "$0" -m las transcribe --model model --threads 1 {arguments} {streams}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable], cwd=folder, capture_output=True, text=True
    )


def test_closed_standard_output(folder):
    done = run(folder, "a.wav", ">&-")
    assert done.returncode == 1
    assert error_line(done.stderr) == "error: standard output: it is closed"


def test_all_streams_closed_and_files_to_write(folder):
    done = run(folder, "a.wav -f txt -o out", "<&- >&- 2>&-")
    assert done.returncode == 0
    assert [path.name for path in (folder / "out").iterdir()] == ["a.txt"]
    assert (folder / "out" / "a.txt").read_text().strip()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["transcribe"]])
def test_a_full_device(folder, monkeypatch, capsys, arguments):
    if arguments == ["transcribe"]:
        arguments = ["transcribe", "--model", folder / "model", folder / "a.wav"]
    monkeypatch.setattr(sys, "argv", ["las", *map(str, arguments)])
    with Path("/dev/full").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with pytest.raises(SystemExit) as caught:
            main.main()
    assert caught.value.code == 1
    line = error_line(capsys.readouterr().err)
    assert line == "error: standard output: No space left on device"


def test_a_reader_of_errors_that_goes_away(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        standard_streams.complain("error: nobody hears it")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)
