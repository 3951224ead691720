"""Workers and drivers are killed: nothing is lost, nothing doubled, nothing half written."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from speech import run_main, small_model

if importlib.util.find_spec("ray") is None:
    pytest.skip("[bulk] is not installed", allow_module_level=True)

from las.bulk import workers  # isort: skip (before Ray, which reads what it sets)
import ray

from las.bulk.blocks import Files, of_files
from las.bulk.results import Result
from las.bulk.workers import Deaths, Pool
from las.errors import LASError
from tests.bulk.compare import within
from tests.bulk.light import DEADLY, Light, transcribe
from tests.cli.transcribe.files import recording

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def two_cores():
    """Ray with two cores, for all tests here."""
    with workers.ray_running(workers=2):
        yield


def rows(folder, name="part"):
    return [
        json.loads(line)
        for path in sorted(folder.glob(f"{name}-*.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]


def wait(condition):
    end = time.monotonic() + 1200
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def busy_workers() -> list[int]:
    """Processes of workers, of those that this process started through Ray."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid, name = int(folder.name), (folder / "cmdline").read_text("utf-8", "replace")
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if "MapBatches(Worker)" in name:
                found.append(pid)
    return [pid for pid in found if parents.get(parents[pid]) == os.getpid()]


def test_a_killed_worker_loses_and_doubles_nothing(tmp_path, monkeypatch, capsys):
    small_model().save_pretrained(tmp_path / "model")
    for index in range(12):
        recording(tmp_path / f"calls/{index}.wav", "FADE CAB BEAD " * (2 + index % 3))
    (tmp_path / "calls/bad.wav").write_text("no audio")
    monkeypatch.chdir(tmp_path)
    killed = []

    def kill():
        wait(lambda: list(tmp_path.glob("out/part-*")))
        killed.append(wait(busy_workers)[0])
        os.kill(killed[0], signal.SIGKILL)
        killed.append(len(list(tmp_path.glob("out/part-*"))))

    killer = threading.Thread(target=kill)
    killer.start()
    chosen = ["calls", "--model", "model", "--word-timestamps"]
    bulk = ["transcribe-bulk", *chosen, "-o", "out", "--workers", 2, "--block-files", 1]
    status, out, err = run_main(monkeypatch, capsys, *bulk)
    killer.join()
    assert killed[1] < 13
    assert (status, out) == (1, "")  # of the bad file
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "12 files, " in err and err.endswith("; 1 failed\n")
    assert [f"error: {row['error']}" for row in rows(tmp_path / "out", "errors")] == errors

    _, _, told = run_main(monkeypatch, capsys, "transcribe", *chosen, "-f", "json", "-o", "alone")
    assert [line for line in told.splitlines() if line.startswith("error: ")] == errors
    found = {row["path"]: row for row in rows(tmp_path / "out")}
    assert len(found) == len(rows(tmp_path / "out")) == 12
    for path in (tmp_path / "alone").iterdir():
        alone = json.loads(path.read_text("utf-8"))
        assert within(alone, found[f"calls/{path.stem}.wav"])

    status, _, err = run_main(monkeypatch, capsys, *bulk)  # a rerun repeats nothing
    told, summary = err.splitlines()
    assert told.startswith("1 file failed before") and summary == "0 files; 13 blocks skipped"
    assert status == 1


def test_a_killed_driver_loses_and_doubles_nothing(tmp_path):
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "tests.bulk.light", tmp_path, "20", address]
    driver = subprocess.Popen(list(map(str, command)), cwd=ROOT)
    wait(lambda: len(list(tmp_path.glob("part-*"))) > 1 or driver.poll() is not None)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    (tmp_path / ".partial-0123456789abcdef.jsonl").write_text('{"pa')
    done = {path: (path.stat().st_mtime_ns, path.read_text()) for path in tmp_path.glob("part-*")}
    assert 2 <= len(done) < 20
    transcribe(tmp_path, 20, 1)
    for path, before in done.items():
        assert (path.stat().st_mtime_ns, path.read_text()) == before
    expected = [
        file for block in of_files([Path(f"{i}.wav") for i in range(20)], 1) for file in block.names
    ]
    assert [row["path"] for row in rows(tmp_path)] == expected
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run.json", *(f"part-{index:05d}.jsonl" for index in range(20))}


def test_only_the_file_at_which_workers_die_has_no_result(monkeypatch):
    monkeypatch.setattr(workers, "_TRIES_SINGLY", 1)
    block = Files((f"{DEADLY}.wav", "b.wav"))
    result = workers._singly(block, Light, Pool(1, 0, "cpu"))
    assert [row["path"] for row in result.rows] == ["b.wav"]
    (error,) = result.errors
    assert error["path"] == f"{DEADLY}.wav"
    assert error["error"].startswith(f"{DEADLY}.wav: the worker died at it 1 times")


def test_a_block_at_which_workers_die_is_given_out_file_by_file(monkeypatch):
    given = []

    def run(blocks, make, using, tries):
        given.append((list(blocks), tries))
        for at, block in enumerate(blocks):
            if "b" not in block.names:
                yield at, Result([{"path": name} for name in block.names])

    monkeypatch.setattr(workers, "_run", run)
    blocks = {3: Files(("x",)), 4: Files(("a", "b", "c")), 9: Files(("y",))}
    found = dict(workers.transcribe(blocks, Light, Pool(1, 0, "cpu")))
    assert found.keys() == blocks.keys()
    assert [row["path"] for row in found[4].rows] == ["a", "c"]
    assert [row["path"] for row in found[4].errors] == ["b"]
    assert given == [
        (list(blocks.values()), workers._TRIES),
        ([Files((name,)) for name in "abc"], workers._TRIES_SINGLY),
    ]


def test_deaths_are_counted():
    deaths = Deaths(tries=2, starts=3)
    assert [deaths.may_begin(5) for _ in range(3)] == [True, True, False]
    assert deaths.may_begin(6)
    assert [deaths.may_start() for _ in range(4)] == [True, True, True, False]
    deaths.done()
    assert [deaths.may_start() for _ in range(4)] == [True, True, True, False]
    assert not deaths.may_begin(5)  # a block is given up: that is progress, too
    assert deaths.may_start()


def test_a_gpu_is_shared_by_as_few_workers_as_possible(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    assert workers.pool(None, "auto") == Pool(2, 1.0, "cuda")
    assert workers.pool(3, "cuda") == Pool(3, 0.5, "cuda")
    assert workers.pool(6, "auto") == Pool(6, 0.3333, "cuda")
    assert workers.pool(None, "cpu") == Pool(8, 0, "cpu")
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    assert workers.pool(None, "auto") == Pool(4, 0, "cpu")
    with pytest.raises(LASError, match="no GPU"):
        workers.pool(None, "cuda")
