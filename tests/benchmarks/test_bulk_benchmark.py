"""The benchmark of bulk transcription reads what the commands print and write."""

import json

import pytest

import las.bulk  # noqa: F401  (before Ray, which reads what it sets)

pytest.importorskip("ray", reason="[bulk] is not installed")

from benchmarks.system import bulk
from las.cli.transcribe.progress import Progress
from las.errors import LASError


def commands(monkeypatch, speeds, text="A"):
    """In place of the commands: they take no time, and say these speeds."""
    called = []

    def las(*arguments):
        name, folder = arguments[0], arguments[-1]
        called.append(name)
        folder.mkdir(parents=True)
        if name == "transcribe":
            (folder / "0000.json").write_text('{"text": "A"}')
        else:
            (folder / "run.json").write_text("{}")
            row = json.dumps({"path": "files/0000.flac", "text": text})
            (folder / "part-00000.jsonl").write_text(row + "\n")
        return f"1 file, 10.0 s of audio in 1.0 s, {speeds[name]}x real time"

    monkeypatch.setattr(bulk, "las", las)
    monkeypatch.setattr(bulk.timing, "others", lambda _: 0.25)
    return called


def test_the_ratio_is_that_of_the_speeds(monkeypatch, tmp_path):
    called = commands(monkeypatch, {"transcribe": 10, "transcribe-bulk": 17.5})
    few = ["--files", "1", "--seconds", "1", "--repeats", "2"]
    bulk.main([*few, "--output", str(tmp_path)])
    assert called == ["transcribe", "transcribe-bulk"] * 2
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "bulk.json").read_text())
    assert {"device", "date", "command", "torch", "python", "ray"} <= found.keys()
    assert (found["ratio"], found["target"], len(found["rows"])) == (1.75, 1.6, 2)
    assert "| 10.0 | 17.5 | 1.75 |" in (folder / "bulk.md").read_text()


def test_other_texts_are_an_error(monkeypatch, tmp_path):
    commands(monkeypatch, {"transcribe": 10, "transcribe-bulk": 17.5}, text="B")
    with pytest.raises(LASError, match="differ"):
        bulk.measure(tmp_path, tmp_path / "work", 2, 8, "cpu")


def test_the_speed_is_that_of_a_summary():
    with Progress(bar=False) as progress:
        progress.started(2.0)
        progress.audio(30.0)
        progress.done = 3
        assert bulk.speed(progress.summary()) == pytest.approx(15, rel=0.1)
