"""The benchmark of long audio runs and writes what it says; how fast anything is, is not tested."""

import json

import jiwer
import pytest
import soundfile

from benchmarks.system import longform


def test_speech_is_as_long_as_asked_and_repeatable(tmp_path):
    said = longform.write_speech(tmp_path / "a.flac", 0.2)
    assert longform.write_speech(tmp_path / "b.flac", 0.2) == said
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()
    assert longform.write_speech(tmp_path / "c.flac", 0.2, seed=1) != said
    assert 12.0 <= soundfile.info(tmp_path / "a.flac").duration < 18.0
    assert len(said.split()) > 12


def test_memory_and_text_are_measured(tmp_path):
    said = longform.write_speech(tmp_path / "a.flac", 0.5)
    row = longform.measure(tmp_path / "a.flac", "cpu", 1)
    assert jiwer.wer(said, row["text"]) < 0.3
    assert row["peak_bytes"] >= row["peak_bytes_before"] > 1e8
    assert row["windows"] > 2


def test_results_are_written_and_growth_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(longform, "LIMIT", 0.5)
    with pytest.raises(SystemExit, match="memory grows"):
        longform.main(["--minutes", "0.1", "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "longform.json").read_text())
    assert {"device", "date", "command", "torch", "python", "growth"} <= found.keys()
    assert [row["minutes"] for row in found["rows"]] == [0.1]
    assert found["growth"] == 1.0
    assert "| 0.1 |" in (folder / "longform.md").read_text()
