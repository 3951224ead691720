"""The moving average follows the weights and leaves the training as it is."""

import pytest
import torch
from speech import RANDOM, equal, run_config, train, weights

from las.config import ModelConfig
from las.model.las import LAS
from las.storage import checkpoint
from las.storage.checkpoint import STATE
from las.storage.weights import read_weights
from las.training.moving_average import MovingAverage
from las.training.trainer import InterruptedTrainingError, Trainer

SMALL = {"listener": {"width": 8}, "speller": {"width": 8}, "attention": {"width": 8}}


@pytest.fixture
def model():
    return LAS(ModelConfig(**SMALL))


def stepped(model, average, count, seed=0):
    """Weights after each of some random steps."""
    torch.manual_seed(seed)
    seen = []
    for _ in range(count):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        average.update()
        seen.append({k: v.clone().double() for k, v in model.named_parameters()})
    return seen


@pytest.mark.parametrize("decay", [0.15, 0.9])
def test_it_is_the_formula(model, decay):
    average = MovingAverage(model, decay)
    seen = stepped(model, average, 12)
    for name, weight in average.model.named_parameters():
        wanted = seen[0][name]
        for step, now in enumerate(seen[1:], 1):
            d = min(decay, (1 + step) / (10 + step))
            wanted = d * wanted + (1 - d) * now[name]
        torch.testing.assert_close(weight.double(), wanted, rtol=1e-5, atol=1e-5)


def test_without_a_decay_it_is_the_model(model):
    average = MovingAverage(model, 0.0)
    stepped(model, average, 1)
    assert average.model is model and average.state() is None


def test_it_goes_on_from_its_state(model):
    average = MovingAverage(model, 0.9)
    stepped(model, average, 2)
    resumed = MovingAverage(model, 0.9)
    resumed.load(average.state())
    for one in (average, resumed):
        one.update()
    assert equal(average.state(), resumed.state())


def averaged_weights(run):
    state = checkpoint.load(run / STATE)["average"]
    return {k.removeprefix("module."): v for k, v in state.items() if k != "n_averaged"}


def test_a_training_is_the_same_and_its_model_is_the_average(corpus, tmp_path, monkeypatch):
    plain, averaged, stopped = (tmp_path / name for name in ("plain", "averaged", "stopped"))
    changes = {"training__epochs": 2, **RANDOM}
    train(run_config(corpus, plain, **changes))
    changes["training__moving_average"] = 0.9
    train(run_config(corpus, averaged, **changes))
    assert equal(weights(plain), checkpoint.load(averaged / STATE)["model"])
    assert equal(weights(averaged), averaged_weights(averaged))
    assert not equal(weights(averaged), weights(plain))
    update = Trainer._update

    def stopping(self, losses):
        update(self, losses)
        self.stop.received = self.position.step == 5

    monkeypatch.setattr(Trainer, "_update", stopping)
    config = run_config(corpus, stopped, **changes)
    with pytest.raises(InterruptedTrainingError):
        train(config)
    train(config)
    assert equal(weights(stopped), weights(averaged))


def test_an_average_may_begin_in_a_training_that_goes_on(corpus, dev, tmp_path, capsys):
    run = tmp_path / "run"
    train(run_config(corpus, run, dev, training__epochs=1))
    config = run_config(corpus, run, dev, training__epochs=2, training__moving_average=0.5)
    trainer = train(config)
    assert "training.moving_average: 0.0 -> 0.5" in capsys.readouterr().out
    # What was measured and kept is the average: as good as when it is read again.
    kept = read_weights(run / "epochs" / "epoch-002.safetensors")
    assert equal(kept, averaged_weights(run)) and not equal(kept, trainer.model.state_dict())


def test_a_skipped_step_is_not_averaged(corpus, tmp_path, monkeypatch):
    clip = torch.nn.utils.clip_grad_norm_
    norms = []

    def spoilt(parameters, limit):
        norms.append(clip(parameters, limit))
        return norms[-1] * float("nan") if len(norms) == 3 else norms[-1]

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoilt)
    config = run_config(corpus, tmp_path / "run", training__epochs=1, training__moving_average=0.9)
    train(config)
    state = checkpoint.load(tmp_path / "run" / STATE)["average"]
    assert int(state["n_averaged"]) == len(norms) - 1 > 2
