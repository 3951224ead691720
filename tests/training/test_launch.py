"""``las train --processes``: what goes wrong is one line, and Ctrl-C reaches every process."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from speech import error_line, run_config, sentences, start, write_manifest
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from las.errors import LASError
from las.storage.settings import save_settings
from las.training import launch
from las.training.distributed import LOST, report
from las.training.launch import Machines


def test_a_mistake_is_one_line_whatever_the_number_of_processes(tmp_path):
    (tmp_path / "run.yaml").write_text(f"data: {{train: {tmp_path}/none.jsonl.gz}}\n")
    process = start("train", tmp_path / "run.yaml", "--processes", 2)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "none.jsonl.gz: no such manifest" in error_line(errors)
    assert out == ""


def wait_for(process, condition):
    until = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.1)


def workers(process):
    """The processes that a process has started."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_a_killed_process_is_started_again_and_an_interrupt_is_said_once(tmp_path):
    manifest = write_manifest(tmp_path / "data", sentences(12))
    settings = run_config(manifest, tmp_path / "run", training__epochs=10000)
    save_settings(settings, tmp_path / "run.yaml")
    process = start("train", tmp_path / "run.yaml", "--processes", 2, "--restarts", 1)
    wait_for(process, (tmp_path / "run/training.pt").exists)
    os.kill(workers(process)[1], signal.SIGKILL)
    log = tmp_path / "run/train.log"
    wait_for(process, lambda: log.read_text().count("cpu x 2, epoch ") == 2)
    steps = max(json.loads(line)["step"] for line in log_lines(tmp_path))
    wait_for(process, lambda: json.loads(log_lines(tmp_path)[-1])["step"] > steps)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    line = errors.splitlines()[-1]
    assert line.startswith("interrupted: ") and line.endswith("the same command resumes")
    assert errors.count("interrupted: ") == 1 and "Traceback" not in errors
    second = log.read_text().split("cpu x 2, epoch ")[2]
    assert int(second.split()[0]) > 1  # it went on where the first had saved


def log_lines(folder):
    return (folder / "run/log.jsonl").read_text().splitlines()


class Failed:
    """A launcher whose processes have failed."""

    def __init__(self, config, _):
        self.folder = Path(config.logs_specs.root_log_dir)

    def __call__(self, *_):
        failures = {}
        for rank, (status, said) in enumerate(self.cases):
            place = self.folder / f"attempt_0/{rank}"
            place.mkdir(parents=True)
            (place / "stderr.log").write_text("".join(f"{line}\n" for line in said))
            if said and said[-1].startswith("error"):
                os.environ["TORCHELASTIC_ERROR_FILE"] = str(place / "error.json")
                report(said[-1], consequence=LOST in said[-1])
            if status:
                failures[rank] = ProcessFailure(rank, 7, status, str(place / "error.json"))
        raise ChildFailedError("las", failures)


@pytest.mark.parametrize(
    ("cases", "status", "lines"),
    [
        (
            [(1, [f"error: {LOST} has ended: see"]), (-9, [])],
            137,
            ["error: process 1 of the training was ended by SIGKILL, as the system does when "
             "memory runs out; the same command resumes from the last checkpoint"],
        ),
        (
            [(1, ["a warning", f"error: {LOST} has ended: see"]), (1, ["error: x.wav: damaged"])],
            1,
            ["a warning", "error: x.wav: damaged"],
        ),
        ([(1, [f"error: {LOST} has ended: see"])] * 2, 1, [f"error: {LOST} has ended: see"]),
    ],
    ids=["killed", "error", "on another machine"],
)  # fmt: skip
def test_one_line_says_why_it_ended(monkeypatch, capsys, cases, status, lines):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "")
    monkeypatch.setattr(launch, "elastic_launch", type("Launch", (Failed,), {"cases": cases}))
    assert launch.run_together(2, ["train"]) == status
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize(("takes", "saving"), [(1, 600), (600, 1)], ids=["saves", "does not end"])
def test_after_a_signal_a_step_may_take_its_time(tmp_path, capsys, monkeypatch, takes, saving):
    """The processes of a launcher have a limit of ours in place of torch's."""
    monkeypatch.setattr(launch, "SAVING", saving)
    code = (
        "import signal, sys, time, pathlib\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (time.sleep({takes}), sys.exit(0)))\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "time.sleep(600)"
    )

    class Launch:
        """Torch's agent, as far as it ends what it has started."""

        def __init__(self, config, _):
            pass

        def __call__(self, *_):
            logs = DefaultLogsSpecs(log_dir=str(tmp_path / "logs"))
            context = start_processes("x", sys.executable, {0: ("-c", code)}, {0: {}}, logs)
            until = time.monotonic() + 60
            while not (tmp_path / "ready").exists():
                assert time.monotonic() < until
                time.sleep(0.01)
            try:
                raise SignalException("a signal", signal.SIGTERM)
            except SignalException as error:
                context.close(error.sigval, 0)  # 0: of torch, 30
                raise

    monkeypatch.setattr(launch, "elastic_launch", Launch)
    assert launch.run_together(1, ["train"]) == 143
    said = capsys.readouterr().err
    if takes < saving:
        assert said == ""
    else:
        assert said.startswith(
            "error: 1 processes of the training did not end within 1 s of SIGTERM"
        )
        assert len(said.splitlines()) == 1


def test_what_is_said_of_machines(monkeypatch, capsys):
    assert Machines.from_options("2", "node1:29400", 3) == Machines(2, 2, "node1:29400", 3)
    assert Machines.from_options("1:4", "node1:29400", 0) == Machines(1, 4, "node1:29400", 0)
    assert Machines.from_options("1", "", 0) == Machines()
    for nodes, rendezvous, words in (
        ("0", "node1:1", "--nodes 0"),
        ("4:2", "node1:1", "--nodes 4:2"),
        ("two", "node1:1", "--nodes two"),
        ("2", "", "--rendezvous HOST:PORT"),
        ("2", "node1", "--rendezvous node1"),
    ):
        with pytest.raises(LASError, match=f"^--.*{words}|^{words}"):
            Machines.from_options(nodes, rendezvous, 0)

    def nobody(*_):
        raise RuntimeError("timed out\nwaiting")

    monkeypatch.setattr(launch, "elastic_launch", lambda *_: nobody)
    assert launch.run_together(2, ["train"], Machines(2, 2, "node1:29400")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the machines of the training did not meet at node1:29400 (")
