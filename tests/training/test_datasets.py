"""Batches of a training that do not fit into memory: halves, and a training on them."""

import pytest
import torch
from speech import (
    RATE,
    equal,
    exhaust,
    log_rows,
    run_config,
    sentences,
    small_model,
    train,
    write_manifest,
)

from las.data.dataset import evaluation_batches
from las.data.manifests import read_manifest
from las.errors import LASError
from las.model.las import LAS
from las.training.datasets import halves
from las.training.trainer import Trainer
from las.training.validation import validate


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    manifest = write_manifest(tmp_path_factory.mktemp("memory"), sentences(5))
    (batch,) = evaluation_batches(read_manifest(manifest), small_model().text, sample_rate=RATE)
    return batch


def limited(monkeypatch, most, fail=exhaust):
    """Let a batch of more utterances run out of memory, once backward has begun."""
    forward, sizes = LAS.forward, []

    def tight(self, waveforms, *arguments, **settings):
        losses = forward(self, waveforms, *arguments, **settings)
        sizes.append(len(waveforms))
        if len(waveforms) > most and losses.ctc.requires_grad:
            losses.ctc.register_hook(lambda _: fail())
        elif len(waveforms) > most:
            fail()
        return losses

    monkeypatch.setattr(LAS, "forward", tight)
    return sizes


def test_halves_hold_every_utterance_with_no_more_padding(batch):
    parts = halves(batch)
    assert [len(part.ids) for part in parts] == [2, 3]
    assert list(halves(halves(parts[0])[0])) == []
    row = 0
    for part in parts:
        assert part.waveforms.shape == (len(part.ids), int(part.samples.max()))
        assert part.tokens.shape == (len(part.ids), int(part.token_lengths.max()))
        for own, id in enumerate(part.ids):
            assert (id, part.texts[own]) == (batch.ids[row], batch.texts[row])
            length, count = int(batch.samples[row]), int(batch.token_lengths[row])
            assert (int(part.samples[own]), int(part.token_lengths[own])) == (length, count)
            assert torch.equal(part.waveforms[own, :length], batch.waveforms[row, :length])
            assert torch.equal(part.tokens[own, :count], batch.tokens[row, :count])
            row += 1


def test_a_training_in_halves_is_the_same_training(corpus, dev, tmp_path, monkeypatch, capsys):
    settings = {"training__epochs": 2, "training__accumulate": 2}
    train(run_config(corpus, tmp_path / "whole", dev, **settings))
    capsys.readouterr()
    sizes = limited(monkeypatch, 3)
    train(run_config(corpus, tmp_path / "halves", dev, **settings))
    assert {2, 4} <= set(sizes)
    whole, halved = log_rows(tmp_path / "whole"), log_rows(tmp_path / "halves")
    assert len(whole) == len(halved)
    for a, b in zip(whole, halved, strict=True):
        assert a.pop("dev", {}) == pytest.approx(b.pop("dev", {}), rel=1e-2)
        assert a == pytest.approx(b, rel=1e-2)
    out = capsys.readouterr().out
    assert "step 1: out of memory: 2 batches or parts of them were computed in halves;" in out
    assert "steps like this so far: 2;" in out and "so far: 3;" not in out


def test_an_utterance_that_never_fits_is_left_out(corpus, tmp_path, monkeypatch, capsys):
    config = run_config(corpus, tmp_path / "run", training__epochs=1, training__max_skipped=2)
    backward = Trainer._backward

    def step_two(self, *arguments):
        with monkeypatch.context() as patch:
            if self.position.step == 1:
                limited(patch, 0, lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
            before = {k: v.clone() for k, v in self.model.state_dict().items()}
            pieces = backward(self, *arguments)
        assert equal(before, self.model.state_dict())
        return pieces

    monkeypatch.setattr(Trainer, "_backward", step_two)
    trainer = train(config)
    assert trainer.position.skipped == 1 and trainer.position.batches == 0
    assert [row["skipped"] for row in log_rows(tmp_path / "run")][:3] == [0, 1, 1]
    assert "that do not fit alone were left out" in capsys.readouterr().out
    monkeypatch.setattr(Trainer, "_backward", backward)
    limited(monkeypatch, 0)
    with pytest.raises(LASError, match="2 steps in a row"):
        train(run_config(corpus, tmp_path / "none", training__max_skipped=2))


def test_a_dev_utterance_that_does_not_fit_is_named(batch, monkeypatch):
    model = small_model()
    limited(monkeypatch, 0)
    with pytest.raises(LASError, match=f"^dev utterance {batch.ids[0]}: out of memory"):
        validate(model, [batch], torch.device("cpu"))
