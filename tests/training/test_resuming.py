"""A training on other processes than before: the same batches in the same steps."""

from functools import partial

import pytest
import torch
from speech import RANDOM, log_rows, run_config, train

from las.errors import LASError
from las.storage import checkpoint
from las.training.resuming import resharing, sharing
from las.training.trainer import Trainer
from tests.training.processes import together

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
