"""The page of costs is computed from the results, and says what was not measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.system import reading

PARAMETERS = 59_600_000
RUN = {"command": "python -m b", "load": 0.5}
ROOT = Path(__file__).parents[2]


def write(folder: Path, name: str, **more) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = {"device": "CPU A, 2 cores", "date": "2027-01-02T03:04:05+00:00", **RUN, **more}
    (folder / f"{name}.json").write_text(json.dumps(found))


@pytest.fixture
def results(tmp_path):
    step = {"backend": "auto", "real_time": 2.0, "parameters": PARAMETERS}
    write(tmp_path / "cpu", "training-960", rows=[{"backend": "reference", "real_time": 9}, step])
    costs = {"FLAC, read alone": 1e-3, "speed 0.9": 2e-3, "rooms": 0.1, "mp3": 0.2}
    rows = [{"what": what, "cpu_s_per_s": cost} for what, cost in costs.items()]
    rows.append({"what": "recipes/general/conf/las.yaml", "cpu_s_per_s": 4e-3})
    write(tmp_path / "cpu", "reading", rows=rows, bytes_per_s=10_000)
    write(tmp_path / "peers", "las-librispeech-dev-clean", cpu_s_per_s=0.5)
    return tmp_path


def test_the_page_is_up_to_date():
    command = [sys.executable, "-m", "benchmarks.scale", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_gpu_its_rows_are_those_of_the_target(results):
    found = scale.evidence(results)
    core, gpu = found.devices
    assert (core.name, core.real_time) == ("one core of CPU A", 2.0)
    assert gpu.real_time == scale.TARGET and "not measured" in gpu.evidence
    text = scale.page(found)
    # 1,000 h 16 times at twice real time: 8,000 h, 48 weeks.
    assert "| 1,000 h | one core of CPU A | 8,000 | 48 | 320 |" in text
    # 7,000 s of speech a second at 4 ms each.
    assert "| one GPU | recipes/general/conf/las.yaml | 28.00 | 70.00 |" in text
    # 238 MB, 14/8 of them over 12.5 GB/s; a step takes 600 / 7000 s.
    assert "| one GPU | 8 | 100 Gbit/s InfiniBand | 0.033 | 0.086 | 38.9% |" in text
    assert "| 100,000 h | 50,000 | 298 | 2,000 |" in text
    assert "Not measured: `python -m benchmarks.system.sampler`" in text


def test_the_sampler_by_the_size_of_the_corpus(results):
    row = {"utterances": 10**6, "of": "shards", "start_s": 1, "epoch_s": 2.5, "resume_s": 3}
    write(results / "cpu", "sampler", rows=[{**row, "growth_bytes": 4e6}])
    assert "| 1,000,000 | shards | 1.0 | 2.5 | 3.0 | 4 |" in scale.page(scale.evidence(results))


def test_a_measured_gpu_replaces_the_target(results):
    row = {"backend": "auto", "real_time": 5000.0, "parameters": PARAMETERS}
    write(results / "h100", "training-960", rows=[row], capability="9.0")
    (results / "h100/training-960.json").write_text(
        (results / "h100/training-960.json").read_text().replace("CPU A, 2 cores", "NVIDIA H100")
    )
    found = scale.evidence(results)
    assert [device.name for device in found.devices] == ["one core of CPU A", "NVIDIA H100"]
    assert "not measured**" not in scale.page(found).split("## Training")[0]


def test_a_benchmark_that_was_not_run_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"benchmarks\.system\.training"):
        scale.evidence(tmp_path)


def test_reading_is_measured_by_what_is_done_to_it(tmp_path):
    reading.main(["--utterances", "1", "--rounds", "1", "--output", str(tmp_path)])
    (folder,) = tmp_path.iterdir()
    found = json.loads((folder / "reading.json").read_text())
    costs = {row["what"]: row["cpu_s_per_s"] for row in found["rows"]}
    assert list(costs) == list(reading.ways()) and min(costs.values()) > 0
    assert costs["mp3"] > costs["FLAC, read alone"]
    assert 1_000 < found["bytes_per_s"] < 32_000
    assert "| mp3 |" in (folder / "reading.md").read_text()
