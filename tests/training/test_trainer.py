"""The loop: it learns, and a stop at any step changes no bit of what comes out."""

import dataclasses
import socket

import pytest
import torch
from speech import (
    RANDOM,
    equal,
    log_rows,
    run_config,
    sentences,
    start,
    train,
    weights,
    write_manifest,
)

import las_kernels
from las.data.manifests import read_manifest
from las.errors import LASError
from las.evaluation.evaluate import transcribe_manifest
from las.model.folder import read_info
from las.model.las import LAS
from las.scoring.wer import score
from las.storage import checkpoint
from las.storage.checkpoint import STATE
from las.storage.settings import save_settings
from las.storage.weights import read_weights, write_weights
from las.training import model_selection
from las.training.model_selection import average_weights
from las.training.trainer import Trainer
from las.training.validation import validate

CPU = torch.device("cpu")


# --- learning -------------------------------------------------------------------------------


def test_it_learns_to_spell_what_it_hears(tmp_path):
    manifest = write_manifest(tmp_path / "train", sentences(30))
    unseen = write_manifest(tmp_path / "unseen", sentences(8, seed=1), seed=1)
    config = run_config(
        manifest,
        tmp_path / "run",
        listener__stack=4,
        listener__reduction=8,
        listener__width=48,
        speller__width=96,
        attention__taps=7,
        data__batch_seconds=20.0,
        data__batch_utterances=5,
        training__epochs=50,
        training__hold=0.6,
    )
    model = LAS.from_pretrained(Trainer(config).run())
    assert score(transcribe_manifest(model, manifest, CPU), bootstrap=1).wer == 0
    # Sentences it never heard: not learnt by heart. Words by chance would be over 85 % wrong.
    assert score(transcribe_manifest(model, unseen, CPU), bootstrap=1).wer < 60
    rows = log_rows(tmp_path / "run")
    assert rows[-1]["attention"] < 0.1 < 3 < rows[0]["attention"]


def test_same_seed_same_bits_and_another_seed_others(corpus, tmp_path):
    runs = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(
            run_config(corpus, tmp_path / name, training__seed=seed, training__epochs=2, **RANDOM)
        )
        runs[name] = log_rows(tmp_path / name)
    assert runs["a"] == runs["b"] and len(runs["a"]) >= 12
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert runs["a"][0]["attention"] != runs["c"][0]["attention"]


def test_a_training_starts_from_the_weights_it_is_given(corpus, tmp_path):
    first = train(run_config(corpus, tmp_path / "first"))
    given = run_config(corpus, tmp_path / "second", training__init=str(tmp_path / "first/model"))
    assert equal(dict(Trainer(given).model.state_dict()), dict(first.model.state_dict()))
    wrong = run_config(
        corpus, tmp_path / "third", training__init=str(tmp_path / "first/model"), speller__width=7
    )
    with pytest.raises(LASError, match=r"speller\.width: 48 -> 7"):
        Trainer(wrong)


def test_a_model_remembers_how_long_its_training_audio_was(corpus, tmp_path):
    train(run_config(corpus, tmp_path / "run", training__epochs=1))
    longest = max(cut.duration for cut in read_manifest(corpus))
    stored = LAS.from_pretrained(tmp_path / "run" / "model").config.longest_seconds
    assert stored == pytest.approx(longest, abs=0.051)


def test_bfloat16_on_a_cpu_spells_in_float32(corpus, tmp_path, monkeypatch):
    seen = []
    spell = las_kernels.decode_sequence

    def note(embedded, memory, *rest, **options):
        seen.append((embedded.dtype, memory.keys.dtype, memory.values.dtype))
        return spell(embedded, memory, *rest, **options)

    monkeypatch.setattr(las_kernels, "decode_sequence", note)
    exact = train(run_config(corpus, tmp_path / "exact", training__epochs=1))
    rounded = train(
        run_config(corpus, tmp_path / "rounded", training__epochs=1, training__precision="bfloat16")
    )
    assert set(seen) == {(torch.float32, torch.float32, torch.float32)}
    assert not equal(dict(exact.model.state_dict()), dict(rounded.model.state_dict()))
    assert all(p.dtype == torch.float32 for p in rounded.model.parameters())


def test_ctc_first(corpus, tmp_path):
    trainer = Trainer(
        run_config(corpus, tmp_path / "run", training__epochs=1, training__ctc_only=1)
    )
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.run()
    rows, after = log_rows(tmp_path / "run"), trainer.model.state_dict()
    assert all(row["attention"] == 0 for row in rows) and rows[-1]["ctc"] < rows[0]["ctc"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("listener.") for name in changed)
    assert not any(name.startswith("speller.") for name in changed)


def test_epochs_of_ctc_alone_are_not_among_the_best(corpus, tmp_path):
    trainer = train(
        run_config(
            corpus,
            tmp_path / "run",
            data__dev=str(corpus),
            training__epochs=3,
            training__ctc_only=2,
        )
    )
    assert [epoch for _, epoch in trainer.position.best] == [3]
    devs = [row["dev"] for row in log_rows(tmp_path / "run") if "dev" in row]
    assert [dev["focus"] > 0 for dev in devs] == [False, False, True]


# --- the step -------------------------------------------------------------------------------


def one_length(folder, count):
    """Texts of one length, so that all batches weigh the same."""
    texts = ["ABE CAB", "DAB ACE", "CAB DAB", "ACE ABE"] * 3
    return write_manifest(folder, texts[:count])


def test_accumulating_halves_is_a_whole_batch(tmp_path):
    manifest = one_length(tmp_path, 12)
    same = {"training__epochs": 2, "data__short_first": 2, "data__batch_seconds": 1000.0}
    train(run_config(manifest, tmp_path / "whole", data__batch_utterances=4, **same))
    halves = {"data__batch_utterances": 2, "training__accumulate": 2}
    train(run_config(manifest, tmp_path / "halves", **halves, **same))
    whole, halves = log_rows(tmp_path / "whole"), log_rows(tmp_path / "halves")
    assert len(whole) == len(halves) == 6
    for a, b in zip(whole, halves, strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_a_group_cut_short_by_the_end_of_the_epoch_weighs_as_a_whole_one(tmp_path):
    manifest = one_length(tmp_path, 6)
    same = {"training__epochs": 1, "data__batch_utterances": 2}
    train(run_config(manifest, tmp_path / "three", training__accumulate=3, **same))
    train(run_config(manifest, tmp_path / "five", training__accumulate=5, **same))
    (three,), (five,) = log_rows(tmp_path / "three"), log_rows(tmp_path / "five")
    assert three == pytest.approx(five, rel=1e-4)
    train(run_config(manifest, tmp_path / "two", training__accumulate=2, **same))
    assert [row["step"] for row in log_rows(tmp_path / "two")] == [1, 2]


def test_every_batch_draws_other_numbers(corpus, tmp_path):
    trainer = Trainer(run_config(corpus, tmp_path / "run"))
    seeds = set()
    for trainer.position.epoch in range(3):
        seeds |= {trainer._seed(batch) for batch in range(10)}
    assert len(seeds) == 30


def poisoned(monkeypatch, steps):
    backward = Trainer._backward

    def poison(self, *arguments, **settings):
        losses = backward(self, *arguments, **settings)
        if self.position.step + 1 in steps:
            self.model.ctc.weight.grad[0, 0] = float("nan")
        return losses

    monkeypatch.setattr(Trainer, "_backward", poison)


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(corpus, tmp_path, monkeypatch):
    poisoned(monkeypatch, {2, 3})
    update, seen = Trainer._update, []

    def noted(self, losses):
        before = {k: v.clone() for k, v in self.model.state_dict().items()}
        update(self, losses)
        seen.append(equal(before, self.model.state_dict()))

    monkeypatch.setattr(Trainer, "_update", noted)
    train(run_config(corpus, tmp_path / "run", training__epochs=1, training__max_skipped=3))
    assert seen[:5] == [False, True, True, False, False]
    assert [row["skipped"] for row in log_rows(tmp_path / "run")][:5] == [0, 1, 2, 2, 2]
    assert all(w.isfinite().all() for w in weights(tmp_path / "run").values())


def test_too_many_of_them_in_a_row_end_the_training(corpus, tmp_path, monkeypatch):
    poisoned(monkeypatch, {2, 4, 5, 6})
    with pytest.raises(LASError, match="3 steps in a row had a gradient that is not finite"):
        train(run_config(corpus, tmp_path / "run", training__max_skipped=3))
    assert log_rows(tmp_path / "run")[-1]["step"] == 5


# --- models that are kept -------------------------------------------------------------------


def test_average_is_the_mean(tmp_path):
    parts = [{"a": torch.randn(3, 2), "b": torch.randn(4)} for _ in range(3)]
    paths = [tmp_path / f"{n}.safetensors" for n in range(3)]
    for part, path in zip(parts, paths, strict=True):
        write_weights(part, path)
    mean = average_weights(paths)
    for name in ("a", "b"):
        expected = (parts[0][name] + parts[1][name] + parts[2][name]) / 3
        torch.testing.assert_close(mean[name], expected)
    assert equal(average_weights(paths[:1]), parts[0])


def scripted(monkeypatch, rates):
    """Let the dev set say these WERs in turn."""
    said = iter(rates)

    def measure(*given):
        result = validate(*given)
        wer = dataclasses.replace(result.score, wer=next(said))
        return dataclasses.replace(result, score=wer)

    monkeypatch.setattr(model_selection, "validate", measure)


@pytest.mark.parametrize("averaged", [20.0, 35.0])
def test_best_and_averaged_models(corpus, dev, tmp_path, monkeypatch, averaged):
    scripted(monkeypatch, [50.0, 30.0, 70.0, 20.0, 40.0, averaged])
    output = tmp_path / "run"
    trainer = train(run_config(corpus, output, dev, training__epochs=5, training__average=3))
    kept = [output / "epochs" / f"epoch-{epoch:03d}.safetensors" for epoch in (2, 4, 5)]
    assert sorted((output / "epochs").iterdir()) == kept
    best = read_weights(output / "best" / "model.safetensors")
    assert equal(best, read_weights(kept[1]))
    assert read_info(output / "best")["epoch"] == "4"
    assert read_info(output / "best")["dev_wer"] == "20.00"
    assert equal(weights(output), average_weights(kept) if averaged <= 20 else best)
    assert read_info(output / "model")["dev_wer"] == "20.00"
    assert [wer for wer, _ in trainer.position.best] == [20.0, 30.0, 40.0, 50.0, 70.0]


def test_without_averaging_the_best_epoch_is_the_model(corpus, dev, tmp_path, monkeypatch):
    scripted(monkeypatch, [30.0, 50.0])
    output = tmp_path / "run"
    train(run_config(corpus, output, dev, training__average=0))
    assert not (output / "epochs").exists()
    best = read_weights(output / "best" / "model.safetensors")
    assert equal(weights(output), best)
    assert not equal(best, checkpoint.load(output / STATE)["model"])


def test_without_a_dev_set_the_last_weights_are_the_model(corpus, tmp_path):
    trainer = train(run_config(corpus, tmp_path / "run", training__epochs=1))
    assert equal(weights(tmp_path / "run"), trainer.model.state_dict())
    assert not (tmp_path / "run" / "best").exists()
    assert read_info(tmp_path / "run" / "model")["utterances"] == "22"


def test_evaluate_every(corpus, dev, tmp_path):
    train(run_config(corpus, tmp_path / "run", dev, training__epochs=3, training__evaluate_every=2))
    rows = [row for row in log_rows(tmp_path / "run") if "dev" in row]
    assert [row["epoch"] for row in rows] == [2, 3]


@pytest.mark.parametrize(("kind", "warned"), [("location", True), ("none", False)])
def test_flat_attention_is_told_after_five_epochs(corpus, dev, tmp_path, kind, warned):
    output = tmp_path / "run"
    settings = {"training__learning_rate": 1e-9, "training__epochs": 6, "training__average": 0}
    train(run_config(corpus, output, dev, attention__kind=kind, **settings))
    lines = (output / "train.log").read_text().splitlines()
    warnings = [line for line in lines if "WARNING: the attention is still flat" in line]
    assert len(warnings) == (2 if warned else 0)


# --- data -----------------------------------------------------------------------------------


def test_what_cannot_be_trained_on_is_told(corpus, tmp_path, capsys):
    lengths = sorted(cut.duration for cut in read_manifest(corpus))
    longest = (lengths[-2] + lengths[-1]) / 2
    trainer = Trainer(run_config(corpus, tmp_path / "run", data__max_seconds=longest))
    assert trainer.count == 21
    assert "left out of training: 1 utterances over" in capsys.readouterr().out
    with pytest.raises(LASError, match="22 of 22 utterances have more characters than CTC"):
        Trainer(run_config(corpus, tmp_path / "run", data__speeds=[2.0], frontend__hop_length=2000))


def test_a_file_that_goes_during_training_is_named(tmp_path):
    manifest = write_manifest(tmp_path, ["ABE CAB", "FADE", "DAB ACE", "ABE"])
    trainer = Trainer(run_config(manifest, tmp_path / "run", data__workers=1))
    path = tmp_path / "audio" / "s0" / "u002.wav"
    path.unlink()
    with pytest.raises(LASError, match=str(path)):
        trainer.run()


# --- several processes ----------------------------------------------------------------------

# The second process finds at every step that a checkpoint is due, the first at none.
REPLICAS = """
import time, types
import torch
from las.cli import main
from las.training import trainer as training

run, save = training.Trainer.run, training.Trainer._save
saves = []

def noted(self):
    if self.group.rank:
        training.time = types.SimpleNamespace(monotonic=lambda: 1e6 * time.monotonic())
    run(self)
    torch.save(self.model.state_dict(), self.output / f"rank{self.group.rank}.pt")
    (self.output / f"saves{self.group.rank}").write_text(" ".join(saves))

def counted(self):
    saves.append(str(self.position.step))
    save(self)

training.Trainer.run, training.Trainer._save = noted, counted
main.main()
"""


def test_two_processes_train_one_model(corpus, tmp_path):
    output = tmp_path / "run"
    # Three batches of unequal size a process and epoch: groups of two are cut short.
    settings = {"data__batch_utterances": 4, "training__accumulate": 2, "training__epochs": 9}
    config = run_config(corpus, output, data__batch_seconds=5.0, training__warmup=2, **settings)
    save_settings(config, tmp_path / "config.yaml")
    (tmp_path / "replicas.py").write_text(REPLICAS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    process = start(
        "train", tmp_path / "config.yaml", launcher=["-m", *arguments, tmp_path / "replicas.py"]
    )
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert out.count("22 utterances, ") == 1 and "cpu x 2" in out
    rows = log_rows(output)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["attention"] < 0.8 * rows[0]["attention"]
    assert rows[-1]["ctc"] < 0.5 * rows[0]["ctc"]
    one, other = (torch.load(output / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert equal(one, other) and equal(one, weights(output))
    # They save together, though their clocks differ; else one would wait for the other for ever.
    first, second = ((output / f"saves{rank}").read_text() for rank in (0, 1))
    assert first == second and set(first.split()) == {str(row["step"]) for row in rows}
