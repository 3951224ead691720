"""The benchmark of samplers runs and writes what it says; how fast anything is, is not tested."""

import json

import pytest
from lhotse import CutSet

from benchmarks.system import sampler


def test_shards_and_manifests_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(sampler, "FILES", 2)
    monkeypatch.setattr(sampler, "PER_SHARD", 20)
    sampler.write_shards(tmp_path / "x.shards", 60)
    assert len(list((tmp_path / "x.shards").glob("*.tar"))) == 3
    CutSet.from_cuts(sampler.cuts(60)).to_file(tmp_path / "x.jsonl.gz")
    for name in ("x.shards", "x.jsonl.gz"):
        row = sampler.measure(tmp_path / name)
        assert row["utterances"] == 60 and 10 < row["batches"] < 60
        assert row["peak_bytes_with_all"] >= row["peak_bytes"] > 1e8


def test_results_are_written_and_growth_is_an_error(tmp_path, monkeypatch):
    rows = iter(range(10))

    def run(path, kind):
        row = dict.fromkeys(("start_s", "epoch_s", "resume_s", "epoch_us_per_utterance"), 1.0)
        peaks = {"peak_bytes": 10**9, "peak_bytes_with_all": 10**9}
        return row | peaks | {"of": kind, "utterances": 1, "growth_bytes": 10**8 * next(rows)}

    monkeypatch.setattr(sampler, "_run", run)
    monkeypatch.setattr(sampler, "PER_SHARD", 10)
    arguments = ["--sizes", "20", "40", "--manifests", "5", "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match="memory grows"):
        sampler.main(arguments)
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "sampler.json").read_text())
    assert {"device", "date", "command", "torch", "python"} <= found.keys()
    assert [row["of"] for row in found["rows"]] == ["manifest", "shards", "shards"]
    assert found["growth_bytes_largest_less_smallest"] == 10**8
    assert "| shards |" in (folder / "sampler.md").read_text()
