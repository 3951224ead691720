"""The tuner keeps only what computes the same; how fast anything is, is not tested."""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks.kernels import timing, tuning
from benchmarks.kernels.tuning_predictions import ASSUMED
from benchmarks.kernels.tuning_tasks import SMALL, SMALLEST, SPACES, Task
from las_kernels.triton import configs

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
CPU = torch.device("cpu")


def test_the_whole_run(tmp_path, monkeypatch):
    late = Task("deferred", ("attention_bwd_dk_kernel",), SMALL, "location")
    monkeypatch.setattr(tuning, "SMALLEST", (*SMALLEST, late))
    few = {kernel: {"num_warps": (2, 4)} for kernel in SPACES}
    monkeypatch.setattr(tuning, "SPACES", few)
    tuning.main(["--device", "cpu", "--smallest", "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "tuning.json").read_text())
    assert {row["kernel"] for row in found["rows"]} == {
        "attention_fwd_combine_kernel",
        "attention_bwd_dq_reduce_kernel",
        "attention_bwd_dk_kernel",
    }
    defaults = [row for row in found["rows"] if not row["choice"]]
    assert len(defaults) == 3
    assert all(row["measured_us"] > 0 for row in found["rows"])
    assert found["choices"].keys() <= {row["key"] for row in found["rows"]}
    assert "| default |" in (folder / "tuning.md").read_text()


def test_the_quickest_is_kept(monkeypatch):
    def measured(bench, trial):
        choice = trial["attention_fwd_combine_kernel"]
        return 100.0 - choice.get("BD", 0) / 10 + 3 * choice.get("num_warps", 4)

    monkeypatch.setattr(tuning.Bench, "measure", measured)
    rows: list[dict] = []
    found = tuning.tune(SMALLEST[0], CPU, ASSUMED, rows)
    assert found == {"attention_fwd_combine_kernel float32 H1 DH12": {"BD": 256, "num_warps": 2}}
    choices = [tuple(sorted(row["choice"].items())) for row in rows]
    assert len(choices) == len(set(choices))  # none is tried twice


def test_what_computes_something_else_is_not_kept(monkeypatch):
    bench = tuning.Bench(SMALLEST[0], CPU)
    assert bench.measure({"attention_fwd_combine_kernel": {"BD": 64}}) > 0
    bench.right[0] += 1
    with pytest.raises(RuntimeError, match="something else"):
        bench.measure({"attention_fwd_combine_kernel": {"BD": 64}})
    # What fails is a row that says so, and the default stays.
    monkeypatch.setattr(timing, "time_on_cpu", None)
    rows: list[dict] = []
    assert tuning.tune(SMALLEST[0], CPU, ASSUMED, rows) == {}
    assert all("TypeError" in row["skipped"] for row in rows)


def test_shipping(tmp_path, monkeypatch):
    found = dict.fromkeys(("device", "date", "torch", "triton"), "x") | {"rows": []}
    found["choices"] = {"attention_fwd_combine_kernel float32 H1 DH12": {"BD": 64}}
    path = tuning.ship(found, (9, 0), tmp_path / "tuned")
    monkeypatch.setattr(configs, "FOLDER", path.parent)
    configs.choices.cache_clear()
    assert configs.choices((9, 0)) == found["choices"]
    configs.choices.cache_clear()


def test_predictions_need_no_gpu(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.kernels.tuning", "--predict", "--smallest"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "sm-90-predicted" / "tuning.json").read_text())
    assert all(row["predicted_us"] > 0 and row["registers"] > 0 for row in found["rows"])
    assert not any("measured_us" in row for row in found["rows"])
