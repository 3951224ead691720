"""A stop at any step changes no bit of what comes out, however it came about."""

import os
import random
import signal
import time

import pytest
from speech import RANDOM, equal, full_disk, log_rows, run_config, run_main, start, train, weights

from las.storage import checkpoint
from las.storage.settings import save_settings
from las.training.trainer import Trainer


@pytest.fixture(scope="module")
def uninterrupted(corpus, dev, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(stoppable(corpus, dev, output))
    return output


def stoppable(corpus, dev, output, **changes):
    settings = {"training__epochs": 5, "training__checkpoint_minutes": 1e-6, "data__workers": 1}
    return run_config(corpus, output, dev, **(RANDOM | settings | changes))


def same_run(a, b):
    assert log_rows(a) == log_rows(b)
    assert equal(weights(a), weights(b))
    one, other = (checkpoint.load(output / checkpoint.STATE) for output in (a, b))
    assert one["position"] == other["position"]
    assert equal(one["model"], other["model"])
    for index, state in one["optimizer"]["state"].items():
        assert equal(state, other["optimizer"]["state"][index])


def stop_at(process, output, step, number, group):
    """Send a signal once the log has reached a step; return exit status and errors."""
    log = output / "log.jsonl"
    deadline = time.monotonic() + 120
    while not log.exists() or not any(
        f'"step": {step},' in x for x in log.read_text().splitlines()
    ):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (os.killpg if group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def test_killed_and_then_terminated_it_ends_with_the_same_bits(
    corpus, dev, uninterrupted, tmp_path
):
    output = tmp_path / "run"
    config = stoppable(corpus, dev, output)
    save_settings(config, tmp_path / "config.yaml")
    first, second = sorted(random.Random(7).sample(range(2, 24), 2))
    assert len(log_rows(uninterrupted)) > 30
    process = start("train", tmp_path / "config.yaml")
    status, _ = stop_at(process, output, first, signal.SIGKILL, group=False)
    assert status == -signal.SIGKILL
    # As a terminal or a batch system does: to the process that reads the data as well.
    process = start("train", tmp_path / "config.yaml")
    status, errors = stop_at(process, output, second, signal.SIGTERM, group=True)
    assert status == 130
    (line,) = errors.splitlines()
    assert line.startswith(f"interrupted: {output}: stopped by a signal after step ")
    assert checkpoint.load(output / checkpoint.STATE)["position"]["step"] >= second
    assert not (output / "model").exists()
    train(config)
    same_run(output, uninterrupted)


class CrashError(Exception):
    """The power went."""


@pytest.mark.parametrize("minutes", [1e-6, 1000.0], ids=["every-step", "every-epoch"])
@pytest.mark.parametrize("seed", [3])
def test_crash_at_any_step(corpus, dev, uninterrupted, tmp_path, monkeypatch, minutes, seed):
    config = stoppable(
        corpus, dev, tmp_path / "run", training__checkpoint_minutes=minutes, data__workers=0
    )
    last = log_rows(uninterrupted)[-1]["step"]
    steps = random.Random(seed).sample(range(1, last + 1), 4)
    for step in sorted(steps):
        with monkeypatch.context() as patch:
            _crash_after(patch, step)
            with pytest.raises(CrashError):
                train(config)
    train(config)
    same_run(tmp_path / "run", uninterrupted)


def _crash_after(patch, step):
    update = Trainer._update

    def crashing(self, losses):
        update(self, losses)
        if self.position.step == step:
            raise CrashError

    patch.setattr(Trainer, "_update", crashing)


def test_crash_between_validation_and_saving(corpus, dev, uninterrupted, tmp_path, monkeypatch):
    config = stoppable(corpus, dev, tmp_path / "run", data__workers=0)
    for epoch in (1, 4):
        with monkeypatch.context() as patch:
            check = Trainer._validate

            def crashing(self, check=check, epoch=epoch):
                check(self)
                if self.position.epoch == epoch:
                    raise CrashError

            patch.setattr(Trainer, "_validate", crashing)
            with pytest.raises(CrashError):
                train(config)
    train(config)
    same_run(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("what", ["damaged", "missing"])
def test_such_a_state_gives_way_to_the_one_before(corpus, dev, uninterrupted, tmp_path, what):
    output = tmp_path / "run"
    config = stoppable(corpus, dev, output, training__checkpoint_minutes=1000.0, data__workers=0)
    with pytest.MonkeyPatch.context() as patch:
        _crash_after(patch, 20)  # the last state is of the end of an epoch
        with pytest.raises(CrashError):
            train(config)
    path = output / checkpoint.STATE
    position = checkpoint.load(path)["position"]
    if what == "damaged":
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        path.unlink()
    train(config)
    same_run(output, uninterrupted)
    log = (output / "train.log").read_text().splitlines()
    (said,) = [line for line in log if f"{path} is {what}: resumes from the state before" in line]
    again = log[log.index(said) - 1]
    assert f", epoch {position['epoch']} of 5" in again  # one epoch less than were complete


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_honoured_after_the_step(corpus, tmp_path, monkeypatch, capsys, number):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    config = run_config(corpus, tmp_path / "run", training__accumulate=2)
    backward = Trainer._backward

    def signalled(self, *batch, **settings):
        if self.position.batches == 2:  # the first of the two of step 2
            os.kill(os.getpid(), number)
        return backward(self, *batch, **settings)

    monkeypatch.setattr(Trainer, "_backward", signalled)
    save_settings(config, tmp_path / "config.yaml")
    status, _, errors = run_main(monkeypatch, capsys, "train", tmp_path / "config.yaml")
    assert status == 130
    assert errors == (
        f"interrupted: {tmp_path / 'run'}: stopped by a signal after step 2; the same command "
        "resumes\n"
    )
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    position = checkpoint.load(tmp_path / "run" / checkpoint.STATE)["position"]
    assert (position["step"], position["batches"]) == (2, 4)


def test_a_full_disk_ends_a_training_with_one_line(corpus, tmp_path, monkeypatch, capsys):
    config = run_config(corpus, tmp_path / "run", training__epochs=1)
    save_settings(config, tmp_path / "config.yaml")
    named = set()
    for size in (100, 3000, 200_000):
        with full_disk(size):
            status, _, errors = run_main(monkeypatch, capsys, "train", tmp_path / "config.yaml")
        (line,) = errors.splitlines()
        assert status == 1 and line.endswith(": File too large")
        named.add(line.split(": ")[1].removeprefix(f"{tmp_path}/run/"))
    assert named >= {"config.yaml", "training.pt"}, named
    assert named <= {"config.yaml", "training.pt", "tensorboard", "log.jsonl", "train.log"}
    assert not list((tmp_path / "run").rglob(".*"))
    status, _, errors = run_main(monkeypatch, capsys, "train", tmp_path / "config.yaml")
    assert (status, errors) == (0, "")
