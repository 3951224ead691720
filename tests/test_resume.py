"""A stop at any step changes no bit of what comes out; a damaged state is told in one line."""

import os
import pickle
import random
import signal
import time

import pytest
import torch
from speech import (
    RANDOM,
    equal,
    log_rows,
    run_config,
    run_main,
    start,
    train,
    weights,
    write_manifest,
    write_pairs,
)

from las import config as configuration
from las import resume, training
from las.errors import LASError
from las.training import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("dev"), ["ABE CAB", "FADE", "DAB ACE"], seed=6)


# --- the file -------------------------------------------------------------------------------


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def refused(path, *words):
    with pytest.raises(LASError) as caught:
        resume.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_what_is_saved_is_loaded(tmp_path):
    weights = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(weights.parameters())
    weights(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    position = {"epoch": 3, "best": [[12.5, 2], [float("nan"), 1]], "config": "a: 1\n"}
    path = tmp_path / "training.pt"
    resume.save(
        path, {"model": weights.state_dict(), "optimizer": optimizer.state_dict(), **position}
    )
    state = resume.load(path)
    assert torch.equal(state["model"]["weight"], weights.weight)
    moments = optimizer.state_dict()["state"][0]
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg_sq"], moments["exp_avg_sq"])
    assert state["epoch"] == 3 and state["best"][0] == [12.5, 2] and state["config"] == "a: 1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_keeps_the_last_state(tmp_path):
    path = tmp_path / "training.pt"
    resume.save(path, {"epoch": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        resume.save(path, {"epoch": 2, "what": lambda: None})
    assert resume.load(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_files(tmp_path):
    path = tmp_path / "training.pt"
    resume.save(path, {"model": torch.zeros(1000)})
    whole = path.read_bytes()
    for data in (b"", b"\0" * 100, whole[: len(whole) // 2], b"a text\n"):
        path.write_bytes(data)
        refused(path, "corrupt")


def test_foreign_files(tmp_path):
    path = tmp_path / "training.pt"
    for state in ({"model": 1}, [1, 2], {"format": "las-training/0"}):
        torch.save(state, path)
        refused(path, "not a training state")


def test_no_code_is_run(tmp_path):
    path, trace = tmp_path / "training.pt", tmp_path / "trace"
    for write in (
        lambda: path.write_bytes(pickle.dumps(Evil(trace), protocol=2)),
        lambda: torch.save({"format": "las-training/1", "x": Evil(trace)}, path),
    ):
        write()
        refused(path, "corrupt")
        assert not trace.exists()


# --- stopping and going on ------------------------------------------------------------------


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
    one, other = (resume.load(output / training.STATE) for output in (a, b))
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
    configuration.dump(config, tmp_path / "config.yaml")
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
    assert resume.load(output / training.STATE)["position"]["step"] >= second
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
        if self.step == step:
            raise CrashError

    patch.setattr(Trainer, "_update", crashing)


def test_crash_between_validation_and_saving(corpus, dev, uninterrupted, tmp_path, monkeypatch):
    config = stoppable(corpus, dev, tmp_path / "run", data__workers=0)
    for epoch in (1, 4):
        with monkeypatch.context() as patch:
            check = Trainer._validate

            def crashing(self, check=check, epoch=epoch):
                check(self)
                if self.epoch == epoch:
                    raise CrashError

            patch.setattr(Trainer, "_validate", crashing)
            with pytest.raises(CrashError):
                train(config)
    train(config)
    same_run(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_honoured_after_the_step(corpus, tmp_path, monkeypatch, capsys, number):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    config = run_config(corpus, tmp_path / "run", training__accumulate=2)
    backward = Trainer._backward

    def signalled(self, batch, synchronise):
        if self.batches == 2:  # the first of the two of step 2
            os.kill(os.getpid(), number)
        return backward(self, batch, synchronise)

    monkeypatch.setattr(Trainer, "_backward", signalled)
    configuration.dump(config, tmp_path / "config.yaml")
    status, _, errors = run_main(monkeypatch, capsys, "train", tmp_path / "config.yaml")
    assert status == 130
    assert errors == (
        f"interrupted: {tmp_path / 'run'}: stopped by a signal after step 2; the same command "
        "resumes\n"
    )
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    position = resume.load(tmp_path / "run" / training.STATE)["position"]
    assert (position["step"], position["batches"]) == (2, 4)


def test_a_finished_training_can_be_run_again(corpus, dev, tmp_path):
    config = run_config(corpus, tmp_path / "run", dev)
    train(config)
    rows, before = log_rows(tmp_path / "run"), weights(tmp_path / "run")
    train(config)
    assert log_rows(tmp_path / "run") == rows and equal(weights(tmp_path / "run"), before)


def test_a_state_from_before_there_was_a_setting_is_resumed(corpus, tmp_path):
    output = tmp_path / "run"
    config = run_config(corpus, output, training__epochs=1)
    train(config)
    state = torch.load(output / training.STATE, weights_only=True)
    assert "  rooms: 0.0\n" in state["config"]
    state["config"] = state["config"].replace("  rooms: 0.0\n", "")
    torch.save(state, output / training.STATE)
    rows = log_rows(output)
    train(config)  # which has nothing left to do
    assert log_rows(output) == rows


def test_resuming_with_other_settings_or_a_damaged_state(corpus, tmp_path):
    output = tmp_path / "run"
    config = run_config(corpus, output, training__epochs=1)
    train(config)
    for changes in (
        {"training__learning_rate": 1e-4},
        {"speller__width": 40},
        {"training__epochs": 2},
    ):
        other = run_config(corpus, output, **({"training__epochs": 1} | changes))
        with pytest.raises(LASError, match="other settings") as caught:
            train(other)
        assert str(output / training.STATE) in str(caught.value)
    for data in (b"", b"a text", (output / training.STATE).read_bytes()[:5000]):
        (output / training.STATE).write_bytes(data)
        with pytest.raises(LASError, match="corrupt or no training state") as caught:
            train(config)
        assert len(str(caught.value).splitlines()) == 1
