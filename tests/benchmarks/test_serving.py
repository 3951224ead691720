"""The load test of `las serve` writes what it says; how fast anything is, is not tested."""

import json

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from benchmarks import common
from benchmarks.system import serving


def test_a_run_is_documented(tmp_path, monkeypatch):
    page = tmp_path / "serving.md"
    page.write_text("before\n<!-- serving -->\nold\n<!-- end -->\nafter\n")
    serving.main(
        ["--clients", "3", "--requests", "4", "--options=--greedy", "--output", str(tmp_path)]
    )
    (path,) = tmp_path.glob("*/serving.json")
    found = json.loads(path.read_text())
    assert {"device", "date", "command", "torch", "python", "model"} <= found.keys()
    assert [row["clients"] for row in found["rows"]] == [1, 3]
    for row in found["rows"]:
        assert 0 < row["p50_s"] <= row["p95_s"] <= row["wall_seconds"]
        assert row["files_per_batch"] >= 1 and row["other_texts"] == 0 and row["requests"] == 4
    assert "| 3 |" in path.with_suffix(".md").read_text()
    serving.render(tmp_path, page)
    text = page.read_text()
    assert text.startswith("before\n<!-- serving -->\n") and text.endswith("<!-- end -->\nafter\n")
    assert found["device"] in text and "| 3 |" in text and "old" not in text


def test_other_texts_are_counted(tmp_path, monkeypatch):
    paths = serving.write_recordings(tmp_path, 3)
    monkeypatch.setattr(serving, "batch_files", lambda _: (0.0, 0.0))
    monkeypatch.setattr(serving, "load", lambda *_: ([0.1, 0.2, 0.3], ["A", "B", "C"], 0.5))
    row = serving.measure("", paths, 2, ["A", "X", "C"])
    assert (row["other_texts"], row["p50_s"], row["p95_s"]) == (1, 0.2, 0.29)
    assert row["audio_hours_per_hour"] == pytest.approx(2 * row["audio_seconds"], rel=0.01)
    assert serving.measure("", paths, 1, [])["other_texts"] == 0


def test_the_page_is_that_of_the_results():
    text = serving.documented(common.RESULTS)
    assert f"<!-- serving -->\n{text}<!-- end -->" in serving.PAGE.read_text("utf-8")
