"""What a training goes on with: more epochs, a state of an earlier version, other processes."""

import shutil
from functools import partial

import pytest
import torch
from speech import RANDOM, equal, log_rows, run_config, train, weights

from las import config_files as configuration
from las.config import RunConfig
from las.errors import LASError
from las.storage import checkpoint
from las.training.resuming import resharing, sharing
from las.training.trainer import Trainer
from tests.training.processes import together


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


# --- on other processes: the same batches in the same steps ---------------------------------

# 22 utterances in batches of 3: the last step of an epoch has fewer batches than the others.
SETTINGS = {"data__batch_utterances": 3, "training__epochs": 3, "training__average": 2}
SETTINGS |= {"data__short_first": 1, "data__workers": 0} | {
    key: RANDOM[key] for key in ("listener__dropout", "data__speeds", "frontend__specaugment")
}


def trained(config, crash, rank):
    torch.set_num_threads(1)
    update = Trainer._update

    def crashing(self, losses):
        update(self, losses)
        if self.position.step == crash:
            raise LASError("the power went")

    Trainer._update = crashing
    trainer = train(config)
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}, trainer.position


def on(world, folder, config, crash=0):
    """Train on a number of processes; perhaps until a step, after which all of them end."""
    return together(world, folder / f"processes{world}-{crash}", partial(trained, config, crash))


def close(a, b):
    """Whether two runs are equal but for rounding."""
    one, other = log_rows(a), log_rows(b)
    assert len(one) == len(other)
    for x, y in zip(one, other, strict=True):
        assert x.pop("dev", {}) == pytest.approx(y.pop("dev", {}), rel=1e-3)
        assert x == pytest.approx(y, rel=1e-3)


@pytest.fixture(scope="module")
def alone(corpus, dev, tmp_path_factory):
    """One process that takes four batches a step."""
    output = tmp_path_factory.mktemp("alone") / "run"
    train(run_config(corpus, output, dev, training__accumulate=4, **SETTINGS))
    return output


def test_the_same_step_on_two_processes_has_the_same_losses(corpus, dev, tmp_path, alone):
    config = run_config(corpus, tmp_path / "run", dev, training__accumulate=2, **SETTINGS)
    (one, position), (other, same) = on(2, tmp_path, config)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert position == same
    close(tmp_path / "run", alone)
    assert (tmp_path / "run/model/model.safetensors").exists()


def test_it_goes_on_with_another_number_of_processes(corpus, dev, tmp_path, alone, capsys):
    output = tmp_path / "run"
    config = run_config(
        corpus, output, dev, training__accumulate=4, training__checkpoint_minutes=1e-6, **SETTINGS
    )
    # One process to the third step, three to the fifth, which share four batches, then two.
    for world, crash in ((1, 3), (3, 5)):
        results = on(world, tmp_path, config, crash)
        assert all("the power went" in str(result) for result in results)
    state = checkpoint.load(output / checkpoint.STATE)
    assert (state["world"], state["step_batches"], state["position"]["step"]) == (3, 4, 4)
    on(2, tmp_path, config)
    close(output, alone)
    log = (output / "train.log").read_text()
    assert "3 processes in place of 1: a step has 4 batches as before, not the same number" in log
    assert "2 processes in place of 3: a step has 4 batches as before\n" in log


def test_batches_of_a_step_may_be_stated_anew_and_not_changed(corpus, tmp_path):
    output = tmp_path / "run"
    train(run_config(corpus, output, training__accumulate=2, training__epochs=1))
    state = checkpoint.load(output / checkpoint.STATE)
    with pytest.raises(LASError, match=r"\(training.accumulate: 2 -> 4\)"):
        train(run_config(corpus, output, training__accumulate=4, training__epochs=1))
    # As if two processes had written it, with two batches each.
    checkpoint.save(output / checkpoint.STATE, {**state, "world": 2, "step_batches": 4})
    trainer = train(run_config(corpus, output, training__accumulate=4, training__epochs=1))
    assert trainer.step_batches == 4
    # The command of before, on one process.
    checkpoint.save(output / checkpoint.STATE, {**state, "world": 2, "step_batches": 4})
    trainer = train(run_config(corpus, output, training__accumulate=2, training__epochs=2))
    assert trainer.step_batches == 4 and trainer.position.epoch == 2


def test_a_state_of_two_processes_of_an_earlier_version(corpus, tmp_path):
    output = tmp_path / "run"
    config = run_config(corpus, output, training__epochs=1, training__checkpoint_minutes=1e-6)
    (result,) = on(1, tmp_path, config, crash=4)
    assert isinstance(result, LASError)
    state = checkpoint.load(output / checkpoint.STATE)
    assert state["position"]["batches"] == 3
    del state["step_batches"]
    state["world"], state["position"]["batches"] = 2, 1
    torch.save(state, output / checkpoint.STATE)
    trainer = train(config)
    assert trainer.step_batches == 2
    # One batch of each process was heard of the six: two steps of two are left.
    assert trainer.position.step == 3 + 2
    assert "of an earlier version" in (output / "train.log").read_text()


def test_what_is_said_of_the_share_of_each():
    assert resharing(2, 2, 4) == []
    (even,) = resharing(4, 2, 4)
    assert even == "2 processes in place of 4: a step has 4 batches as before"
    (odd,) = resharing(2, 3, 4)
    assert odd.endswith("as before, not the same number for each")
    (idle,) = resharing(2, 6, 4)
    assert idle.endswith("as before, so that 2 processes have nothing to do")


def test_how_states_say_what_a_step_is():
    assert sharing({"world": 3, "step_batches": 8}) == (3, 8)
    assert sharing({"world": 2, "config": "training: {accumulate: 4}"}) == (2, 8)
    for config in (None, "- 1", "{", "training: 3", "training: {accumulate: x}"):
        assert sharing({"config": config}) == (1, 1)
