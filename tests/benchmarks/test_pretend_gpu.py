"""What is written for a GPU runs from end to end on a pretended one, and reaches the same texts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from speech import write_pairs

ROOT = Path(__file__).parents[2]
BENCHMARKS = ("listener", "pipeline")  # the others: test_gpu_run.py


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        ["env", *(f"{k}={v}" for k, v in environment.items()), sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_measure_all_they_should(name, tmp_path):
    run(
        "tests/pretend_gpu.py", f"benchmarks.system.{name}", "--smallest", "--output", str(tmp_path)
    )
    folder = tmp_path / "pretended-gpu"
    found = json.loads((folder / f"{name}.json").read_text())
    assert found["device"] == "Pretended GPU"
    assert found["capability"] == "9.0" and "note" not in found
    assert "skipped" not in json.dumps(found)
    assert "Pretended GPU" in (folder / f"{name}.md").read_text()


def test_texts_are_those_of_a_cpu():
    audio = sorted(map(str, (ROOT / "las/samples").glob("*.wav")))
    expected = run("-m", "las", "transcribe", "--device", "cpu", *audio)
    assert len(expected.splitlines()) == len(audio) > 0
    assert run("tests/pretend_gpu.py", "las", "transcribe", *audio) == expected


# A training that prints at each step how often the host has waited for the GPU.
STEPS = """
import sys
sys.path[:0] = ["tests", "tests/kernels", "."]
import pretend_gpu
pretend_gpu.pretend()
from las.training.logger import TrainingLogger
TrainingLogger.step = lambda *_, **__: print("waits", pretend_gpu.Host.waits)
from pathlib import Path
from speech import RANDOM, run_config
from las.training.trainer import Trainer
manifest, output = map(Path, sys.argv[1:])
random = {**RANDOM, "data__mp3": 0.0, "training__accumulate": 2, "training__epochs": 1}
with pretend_gpu.Pretence():
    Trainer(run_config(manifest, output, training__device="cuda", **random)).run()
"""


def test_a_step_of_training_waits_once(tmp_path):
    manifest = write_pairs(tmp_path)
    reference = {"LAS_KERNELS_BACKEND": "reference"}
    told = run("-c", STEPS, str(manifest), str(tmp_path / "run"), **reference)
    first, *others = (
        int(line.split()[1]) for line in told.splitlines() if line.startswith("waits ")
    )
    assert len(others) == 2
    assert others == [first + 1, first + 2]
