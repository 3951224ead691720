"""A stop at any step changes no bit of what comes out; a damaged state is told in one line."""

import os
import pickle
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from speech import (
    RANDOM,
    equal,
    full_disk,
    log_rows,
    run_config,
    run_main,
    start,
    train,
    weights,
)

from las import config_files as configuration
from las.config import RunConfig
from las.errors import LASError
from las.storage import checkpoint
from las.storage.settings import save_settings
from las.training.trainer import Trainer

# --- the file -------------------------------------------------------------------------------


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def refused(path, *words):
    with pytest.raises(LASError) as caught:
        checkpoint.load(path)
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
    checkpoint.save(
        path, {"model": weights.state_dict(), "optimizer": optimizer.state_dict(), **position}
    )
    state = checkpoint.load(path)
    assert torch.equal(state["model"]["weight"], weights.weight)
    moments = optimizer.state_dict()["state"][0]
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg_sq"], moments["exp_avg_sq"])
    assert state["epoch"] == 3 and state["best"][0] == [12.5, 2] and state["config"] == "a: 1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_state_before_is_kept_and_taken_if_the_last_is_damaged(tmp_path):
    path = tmp_path / "training.pt"
    for epoch in (1, 2, 3):
        checkpoint.save(path, {"epoch": epoch, "model": torch.full((1000,), float(epoch))})
    before = checkpoint.previous(path)
    assert sorted(tmp_path.iterdir()) == [before, path]
    assert checkpoint.load(before)["epoch"] == 2
    assert checkpoint.load_last(path)[1] is None
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for data in (b"", whole[:middle], flipped, whole[:-5] + b"00000", whole[:-500] + 500 * b"\0"):
        path.write_bytes(data)
        with pytest.raises(LASError, match="corrupt"):
            checkpoint.load(path)
        state, said = checkpoint.load_last(path)
        assert state["epoch"] == 2
        assert said == f"{path} is damaged: resumes from the state before it, {before.name}"
    # A damaged state does not become the one before.
    checkpoint.save(path, {"epoch": 4})
    assert [checkpoint.load(one)["epoch"] for one in (before, path)] == [2, 4]
    before.write_bytes(b"nonsense")
    path.write_bytes(b"nonsense")
    with pytest.raises(LASError, match=f"^{path}: corrupt"):
        checkpoint.load_last(path)


def test_a_state_without_checksum_is_loaded_and_kept(tmp_path):
    path = tmp_path / "training.pt"
    torch.save({"format": "las-training/1", "epoch": 1}, path)
    assert checkpoint.load_last(path)[0]["epoch"] == 1
    checkpoint.save(path, {"epoch": 2})
    assert checkpoint.load(checkpoint.previous(path))["epoch"] == 1


def test_the_state_before_is_taken_if_the_last_is_missing(tmp_path):
    path = tmp_path / "training.pt"
    assert not checkpoint.exists(path)
    for epoch in (1, 2):
        checkpoint.save(path, {"epoch": epoch})
    path.unlink()
    before = checkpoint.previous(path)
    assert checkpoint.exists(path)
    state, said = checkpoint.load_last(path)
    assert state["epoch"] == 1
    assert said == f"{path} is missing: resumes from the state before it, {before.name}"
    # It stays until there are two again.
    checkpoint.save(path, {"epoch": 3})
    assert [checkpoint.load(one)["epoch"] for one in (before, path)] == [1, 3]
    path.unlink()
    before.write_bytes(b"nonsense")
    with pytest.raises(LASError, match=f"^{before}: corrupt"):
        checkpoint.load_last(path)


def test_on_a_file_system_without_links_the_state_before_is_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "training.pt"
    for epoch in (1, 2):
        checkpoint.save(path, {"epoch": epoch})
    before = checkpoint.previous(path)
    assert sorted(tmp_path.iterdir()) == [before, path] and checkpoint.load(before)["epoch"] == 1


def test_a_failed_save_keeps_the_last_state(tmp_path):
    path = tmp_path / "training.pt"
    checkpoint.save(path, {"epoch": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        checkpoint.save(path, {"epoch": 2, "what": lambda: None})
    assert checkpoint.load(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_files(tmp_path):
    path = tmp_path / "training.pt"
    checkpoint.save(path, {"model": torch.zeros(1000)})
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


def test_a_finished_training_can_be_run_again(corpus, dev, tmp_path):
    config = run_config(corpus, tmp_path / "run", dev)
    train(config)
    rows, before = log_rows(tmp_path / "run"), weights(tmp_path / "run")
    train(config)
    assert log_rows(tmp_path / "run") == rows and equal(weights(tmp_path / "run"), before)


def test_a_state_of_an_older_version_is_resumed(corpus, dev, tmp_path):
    """It lacks a setting, and its ranking of epochs is a list of lists."""
    output, settings = tmp_path / "run", {"training__hold": 0.0}
    train(run_config(corpus, output, dev, training__epochs=1, **settings))
    state = checkpoint.load(output / checkpoint.STATE)
    assert "  rooms: 0.0\n" in state["config"]
    state["config"] = state["config"].replace("  rooms: 0.0\n", "")
    state["position"]["best"] = [list(epoch) for epoch in state["position"]["best"]]
    del state["position"]["before"]
    torch.save(state, output / checkpoint.STATE)
    trainer = train(run_config(corpus, output, dev, training__epochs=2, **settings))
    assert sorted(epoch for _, epoch in trainer.position.best) == [1, 2]


def test_a_training_goes_on_with_more_epochs_at_the_rate_of_the_new_total(corpus, dev, tmp_path):
    output, longer = tmp_path / "run", {"training__epochs": 4, "training__hold": 0.0}
    trainer = train(run_config(corpus, output, training__epochs=2, training__hold=0.0))
    step = trainer.position.step
    # Where everything lies, and what looks at it, may be new as well.
    moved = output.rename(tmp_path / "moved")
    data = (tmp_path / "train.jsonl.gz", tmp_path / "dev.jsonl.gz")
    for old, new in zip((corpus, dev), data, strict=True):
        shutil.copyfile(old, new)
    free = {
        "data__workers": 1,
        "training__evaluate_every": 4,
        "training__checkpoint_minutes": 1.0,
    }
    config = run_config(data[0], moved, data[1], **longer, **free)
    trainer = train(config)
    assert trainer.position.epoch == 4 and trainer.position.step > step
    rows = [row for row in log_rows(moved) if "rate" in row]
    assert len(rows) == trainer.position.step
    whole = tmp_path / "whole"
    train(run_config(corpus, whole, **longer))
    expected = [row for row in log_rows(whole) if "rate" in row]
    assert [row["rate"] for row in rows[step:]] == [row["rate"] for row in expected[step:]]
    assert rows[step - 1]["rate"] < expected[step - 1]["rate"]  # two epochs had come to their end
    assert configuration.load(RunConfig, moved / "config.yaml") == config
    line = next(x for x in (moved / "train.log").read_text().splitlines() if "resumes with" in x)
    assert "training.epochs: 2 -> 4" in line and f"data.train: {corpus} -> {data[0]}" in line


def test_resuming_with_other_settings_or_a_damaged_state(corpus, tmp_path):
    output = tmp_path / "run"
    config = run_config(corpus, output, training__epochs=1, training__learning_rate=0.001)
    train(config)
    for changes, words in (
        ({"training__learning_rate": 0.002}, "(training.learning_rate: 0.001 -> 0.002)"),
        (
            {"speller__width": 40, "training__seed": 2, "training__epochs": 2},
            "(speller.width: 48 -> 40; training.seed: 1 -> 2)",
        ),
    ):
        settings = {"training__epochs": 1, "training__learning_rate": 0.001} | changes
        with pytest.raises(LASError, match="other settings") as caught:
            train(run_config(corpus, output, **settings))
        assert str(caught.value).startswith(f"{output / checkpoint.STATE}: ")
        assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1
    whole = (output / checkpoint.STATE).read_bytes()
    state = checkpoint.load(output / checkpoint.STATE)
    assert not checkpoint.previous(output / checkpoint.STATE).exists()
    torch.save({"format": state["format"], "lm": state["config"]}, output / checkpoint.STATE)
    with pytest.raises(LASError, match="another kind"):
        train(config)
    for data in (b"", b"a text", whole[:5000]):
        (output / checkpoint.STATE).write_bytes(data)
        with pytest.raises(LASError, match="corrupt or no training state") as caught:
            train(config)
        assert len(str(caught.value).splitlines()) == 1


# --- one training to a folder ---------------------------------------------------------------


def test_a_second_training_in_the_folder_is_refused(corpus, tmp_path, monkeypatch):
    output = tmp_path / "run"
    refused = []
    update = Trainer._update

    def second(self, losses):
        update(self, losses)
        if not refused:
            before = {path: path.read_bytes() for path in output.glob("*.*") if path.is_file()}
            with pytest.raises(LASError) as caught:
                Trainer(run_config(corpus, output, speller__width=24)).run()
            refused.append(str(caught.value))
            assert before == {path: path.read_bytes() for path in before}

    monkeypatch.setattr(Trainer, "_update", second)
    (output / "epochs").mkdir(parents=True)
    (output / "epochs" / ".partial-left.safetensors").touch()
    train(run_config(corpus, output, training__epochs=1, data__workers=1))
    assert len(refused) == 1 and refused[0].startswith(f"{output}: another training runs")
    assert configuration.load(RunConfig, output / "config.yaml").speller.width == 48
    assert not list(output.rglob(".*"))


class Second:
    """Of two processes that train together."""

    first = False

    def __init__(self, taken):
        self.taken = taken

    def any(self, taken):
        assert not taken  # it has not looked
        return [self.taken]


def test_with_several_processes_the_first_takes_the_folder_for_all(tmp_path):
    with checkpoint.exclusive(tmp_path), checkpoint.exclusive(tmp_path, Second(taken=False)):
        with pytest.raises(LASError, match="another training"), checkpoint.exclusive(tmp_path):
            pass
        with (
            pytest.raises(LASError, match="another training"),
            checkpoint.exclusive(tmp_path, Second(taken=True)),
        ):
            pass


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
