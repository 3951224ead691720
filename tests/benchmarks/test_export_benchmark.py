"""The comparison of exported models runs, and its table in the documentation is that of a run."""

import json
from pathlib import Path

from benchmarks.system import export

RESULTS = sorted(Path(export.common.RESULTS).glob("*/export.json"))


def test_batches_are_bounded():
    second = export.reader.SAMPLE_RATE
    waveforms = [export.np.zeros(seconds * second) for seconds in (20, 5, 5, 70, 1)]
    found = export.batches(waveforms)
    assert [[len(one) // second for one in batch] for batch in found] == [[20, 5, 5], [70], [1]]


def test_it_runs(tmp_path):
    export.main(["--utterances", "1", "--rounds", "1", "--output", str(tmp_path)])
    (written,) = tmp_path.glob("*/export.json")
    rows = json.loads(written.read_text())["rows"]
    assert [row["what"] for row in rows] == [export.TORCH, "ONNX, float32", "ONNX, int8"]
    assert all(row["as_torch"] == row["as_in_batches"] == 1 for row in rows)
    assert rows[2]["bytes"] < 0.3 * rows[1]["bytes"]
    assert "| ONNX, int8 |" in written.with_suffix(".md").read_text()


def test_the_page_shows_a_run():
    text = export.PAGE.read_text("utf-8")
    found = [json.loads(path.read_text("utf-8")) for path in RESULTS]
    assert any(export.page(text, one) == text for one in found)


def test_a_run_is_written_into_the_page(tmp_path, monkeypatch):
    page = tmp_path / "export.md"
    page.write_text("above\n<!-- results -->\nold\n<!-- end -->\nbelow\n")
    monkeypatch.setattr(export, "PAGE", page)
    export.main(["--page", str(RESULTS[0])])
    above, inside, below = page.read_text().partition(
        export.table(json.loads(RESULTS[0].read_text()))
    )
    assert (
        above == "above\n<!-- results -->\n" and inside and below.endswith("<!-- end -->\nbelow\n")
    )
    assert "old" not in below
