"""Training of language models: what is learnt, kept, resumed, and how the command is misused."""

import math
import signal

import numpy as np
import pytest
import torch
from speech import error_line, exhaust, full_disk, log_rows, run_main

from las.errors import LASError
from las.lm import trainer as lm_trainer
from las.lm.config import LMConfig, load
from las.lm.corpus import read
from las.lm.lstm import LanguageModel, measure
from las.lm.trainer import InterruptedLMTrainingError, LMTrainer
from las.model.folder import read_info
from las.storage.weights import read_weights

STOP = 0.3


def grammar(count, seed):
    """A letter of four, some E, the same letter again; and nats of the best prediction."""
    random = np.random.default_rng(seed)
    lines, nats = [], 0.0
    for _ in range(count):
        letter, more = random.choice(list("ABCD")), int(random.geometric(STOP)) - 1
        lines.append(letter + "E" * more + letter)
        nats -= math.log(1 / 4) + more * math.log(1 - STOP) + math.log(STOP)
    return lines, nats


def config(**training):
    settings = {
        "dev_every": 4,
        "batch_characters": 120,
        "max_characters": 100,
        "evaluate_every": 4,
        "log_every": 1,
        "warmup": 3,
    }
    return LMConfig(
        alphabet=" ABCDE", width=16, embedding=4, dropout=0.2, training={**settings, **training}
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    random = np.random.default_rng(0)
    lines = ["".join(random.choice(list("ABC D"), 12)) for _ in range(150)]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(lines))
    return path


def losses(output):
    return [row["loss"] for row in log_rows(output) if "loss" in row]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_grammar_is_learnt_to_near_its_entropy(tmp_path, precision):
    lines, _ = grammar(8000, seed=1)
    path = tmp_path / "train.txt"
    path.write_text("\n".join(lines))
    settings = LMConfig(
        alphabet="ABCDE",
        width=32,
        embedding=8,
        dropout=0.0,
        training={
            "steps": 300,
            "dev_every": 0,
            "batch_characters": 800,
            "max_characters": 60,
            "learning_rate": 0.01,
            "warmup": 10,
            "precision": precision,
        },
    )
    folder = LMTrainer(settings, path, tmp_path / "run").run()
    fresh, best = grammar(2000, seed=2)
    path.write_text("\n".join(fresh))
    model = LanguageModel.load(folder)
    result = measure(model, read(path, model.text, 100).train)
    assert best * 0.999 <= result.nats <= best * 1.03


def test_the_best_model_is_kept_with_its_perplexity(text, tmp_path):
    trainer = LMTrainer(config(steps=30, learning_rate=0.05), text, tmp_path / "run")
    folder = trainer.run()
    rows = [row for row in log_rows(tmp_path / "run") if "dev" in row]
    assert [row["step"] for row in rows] == [4, 8, 12, 16, 20, 24, 28, 30]
    best = min(rows, key=lambda row: row["dev"]["bits_per_character"])
    info = read_info(folder)
    assert info["step"] == str(best["step"])
    value = best["dev"]["perplexity_per_character"]
    assert float(info["dev_perplexity_per_character"]) == pytest.approx(value, abs=1e-4)
    assert measure(LanguageModel.load(folder), trainer.dev).per_character == pytest.approx(value)


def test_no_step_sees_a_held_out_sentence(text, tmp_path, monkeypatch):
    seen = set()
    genuine = LanguageModel.losses

    def spy(self, tokens, lengths):
        if self.training:
            seen.update(
                self.text.decode(row[:n]) for row, n in zip(tokens.tolist(), lengths, strict=True)
            )
        return genuine(self, tokens, lengths)

    monkeypatch.setattr(LanguageModel, "losses", spy)
    trainer = LMTrainer(config(steps=60), text, tmp_path / "run")
    trainer.run()
    dev = trainer.text.dev
    tokens, lengths = dev.select(np.arange(len(dev)))
    held_out = {
        trainer.model.text.decode(r[:n]) for r, n in zip(tokens.tolist(), lengths, strict=True)
    }
    assert len(seen) > 80 and len(held_out) > 10
    assert not seen & held_out


@pytest.mark.parametrize("stop_after", [1, 7, 13, 16])
def test_a_resumed_training_computes_the_same_bits(text, tmp_path, monkeypatch, stop_after):
    straight = tmp_path / "straight"
    LMTrainer(config(steps=24), text, straight).run()
    stopped = tmp_path / "stopped"
    genuine = LMTrainer._update

    def stopping(self, index):
        result = genuine(self, index)
        if self.position.step == stop_after:
            signal.raise_signal(signal.SIGTERM)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(LMTrainer, "_update", stopping)
        with pytest.raises(InterruptedLMTrainingError, match=f"after step {stop_after}"):
            LMTrainer(config(steps=24), text, stopped).run()
    assert len(losses(stopped)) == stop_after
    with (stopped / "log.jsonl").open("a") as file:  # of a step that was not saved, and cut off
        file.write('{"step": 23, "loss": 1.0}\n{"step": 24, "lo')
    torch.manual_seed(99)
    LMTrainer(config(steps=24), text, stopped).run()
    assert losses(stopped) == losses(straight) and len(losses(straight)) == 24
    a, b = (read_weights(folder / "model/model.safetensors") for folder in (straight, stopped))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert trainer_dev(straight) == trainer_dev(stopped)


def trainer_dev(output):
    return [row["dev"] for row in log_rows(output) if "dev" in row]


def test_a_finished_training_is_not_trained_on(text, tmp_path):
    LMTrainer(config(steps=5), text, tmp_path / "run").run()
    before = (tmp_path / "run/model/model.safetensors").read_bytes()
    rows = log_rows(tmp_path / "run")
    LMTrainer(config(steps=5), text, tmp_path / "run").run()
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == before
    assert log_rows(tmp_path / "run") == rows


def test_a_folder_of_another_training_is_refused(text, tmp_path):
    output = tmp_path / "run"
    LMTrainer(config(steps=2), text, output).run()
    with pytest.raises(LASError, match=r"\(training.learning_rate: 0.002 -> 0.001\)"):
        LMTrainer(config(steps=2, learning_rate=1e-3), text, output).run()
    other = tmp_path / "other.txt"
    other.write_text(text.read_text()[:-2] + "A\n")
    with pytest.raises(LASError, match="another text"):
        LMTrainer(config(steps=2), other, output).run()
    (output / "training.pt").write_bytes(b"nonsense")
    with pytest.raises(LASError, match="corrupt or no training state"):
        LMTrainer(config(steps=2), text, output).run()


def test_a_batch_that_does_not_fit_is_computed_in_halves(text, tmp_path, monkeypatch, capsys):
    settings = config(steps=3).model_copy(update={"dropout": 0.0})
    LMTrainer(settings, text, tmp_path / "whole").run()
    losses, sizes = LanguageModel.losses, []

    def tight(self, tokens, lengths):
        sizes.append(len(tokens))
        if len(tokens) > 2 and self.training:
            exhaust()
        return losses(self, tokens, lengths)

    monkeypatch.setattr(LanguageModel, "losses", tight)
    capsys.readouterr()
    LMTrainer(settings, text, tmp_path / "halves").run()
    assert max(sizes) > 2
    one, other = (
        [row["loss"] for row in log_rows(tmp_path / name) if "loss" in row]
        for name in ("whole", "halves")
    )
    assert one == pytest.approx(other, rel=1e-4) and one
    assert "WARNING: step 1: out of memory: " in capsys.readouterr().out
    monkeypatch.setattr(LanguageModel, "losses", lambda *_: exhaust())
    with pytest.raises(LASError, match=r"out of memory for a sentence of .*max_characters"):
        LMTrainer(settings, text, tmp_path / "none").run()


def test_a_damaged_state_gives_way_to_the_one_before(text, tmp_path, capsys):
    output = tmp_path / "run"
    for steps in (2, 4):
        LMTrainer(config(steps=steps), text, output).run()
    (output / "training.pt").write_bytes(b"nonsense")
    trainer = LMTrainer(config(steps=4), text, output)
    trainer.run()
    assert trainer.position.step == 4
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "is damaged: " in line]
    assert said.endswith(
        "training.pt is damaged: resumes from the state before it, training.previous.pt"
    )


def test_a_training_goes_on_with_more_steps_at_the_rate_of_the_new_total(text, tmp_path):
    LMTrainer(config(steps=4), text, tmp_path / "run").run()
    LMTrainer(config(steps=8, evaluate_every=3), text, tmp_path / "run").run()
    LMTrainer(config(steps=8), text, tmp_path / "whole").run()
    one, other = (
        [row["rate"] for row in log_rows(tmp_path / name) if "rate" in row]
        for name in ("run", "whole")
    )
    assert one[4:] == other[4:] and len(one) == 8 and one[3] < other[3]
    log = (tmp_path / "run" / "train.log").read_text()
    assert "training.steps: 4 -> 8; training.evaluate_every: 4 -> 3\n" in log
    assert load(tmp_path / "run" / "config.yaml") == config(steps=8, evaluate_every=3)


def test_a_second_training_in_the_folder_is_refused(text, tmp_path, monkeypatch):
    output = tmp_path / "run"
    trainer = LMTrainer(config(steps=2), text, output)

    def second():
        with pytest.raises(LASError, match="another training runs in this folder"):
            LMTrainer(config(steps=3), text, output).run()
        LMTrainer._save(trainer)

    monkeypatch.setattr(trainer, "_save", second)
    trainer.run()
    assert load(output / "config.yaml") == config(steps=2) and not list(output.rglob(".*"))


@pytest.mark.parametrize("size", [10, 1000, 4000])
def test_a_full_disk_is_one_line_that_names_the_file(text, tmp_path, monkeypatch, capsys, size):
    arguments = ("lm", "train", text, tmp_path / "run", "width=16", "training.steps=2")
    with full_disk(size):
        status, _, errors = run_main(monkeypatch, capsys, *arguments)
    assert status == 1
    name = {10: "config.yaml", 1000: "model/model.safetensors", 4000: "model/model.safetensors"}
    assert error_line(errors) == f"error: {tmp_path / 'run' / name[size]}: File too large"


def test_time_ends_a_training(text, tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 2))  # each look at it is two seconds later
    monkeypatch.setattr(lm_trainer.time, "monotonic", lambda: float(next(clock)))
    trainer = LMTrainer(config(steps=10_000, max_minutes=1.0), text, tmp_path / "run")
    folder = trainer.run()
    assert 5 < trainer.position.step < 40
    assert log_rows(tmp_path / "run")[-1]["step"] == trainer.position.step
    assert LanguageModel.load(folder).config.width == 16


def test_gradients_that_are_not_finite_are_skipped_then_told(text, tmp_path, monkeypatch):
    genuine = LanguageModel.losses

    def broken(self, tokens, lengths):
        factor = math.nan if self.training else 1.0
        return genuine(self, tokens, lengths) * factor

    monkeypatch.setattr(LanguageModel, "losses", broken)
    trainer = LMTrainer(config(steps=30, max_skipped=6), text, tmp_path / "run")
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    with pytest.raises(LASError, match="6 steps in a row"):
        trainer.run()
    after = trainer.model.state_dict()
    assert trainer.position.skipped == 6 and all(torch.equal(before[k], after[k]) for k in before)


def test_a_text_with_nothing_to_hold_out(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("A\n")
    with pytest.raises(LASError, match=r"no sentence for the (train|dev) set of 1; .*dev_every"):
        LMTrainer(config(), path, tmp_path / "run")


# --- settings and the command ---------------------------------------------------------------


def test_settings_come_from_a_file_then_the_command_line(tmp_path):
    path = tmp_path / "lm.yaml"
    path.write_text("width: 8\ntraining: {steps: 7}\n")
    settings = load(path, ["training.steps=9"])
    assert (settings.width, settings.training.steps) == (8, 9)
    assert load(None, ["width=3"]).width == 3
    assert load(None) == LMConfig()


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("wdth=3", "did you mean `width`"),
        ("step=3", "did you mean `training.steps`"),
        ("training.dev_every=1", "every sentence"),
        ("training.max_characters=5000", "below batch_characters"),
        ("width=-1", "`width`"),
        ("alphabet=AA", "repeats"),
        ("width", "key=value"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, monkeypatch, capsys, text, override, word):
    code, _, err = run_main(monkeypatch, capsys, "lm", "train", text, tmp_path / "run", override)
    assert code == 1 and word in error_line(err)
    assert not (tmp_path / "run").exists()


def test_train_and_score_from_the_command_line(text, tmp_path, monkeypatch, capsys):
    output = tmp_path / "run"
    settings = ["width=12", "embedding=4", "training.steps=6", "training.dev_every=5"]
    code, out, err = run_main(monkeypatch, capsys, "lm", "train", text, output, *settings)
    assert code == 0 and not err
    assert "dev perplexity" in out and f"model: {output / 'model'}" in out
    more = tmp_path / "more.txt"
    more.write_text("ABC D\n\n12\nAD\n")
    code, out, err = run_main(monkeypatch, capsys, "lm", "score", output / "model", more)
    assert code == 0 and not err
    model = LanguageModel.load(output / "model")
    expected = measure(model, read(more, model.text, 100).train)
    assert f"perplexity per character: {expected.per_character:.4f}" in out
    assert f"perplexity per word: {expected.per_word:.2f}" in out
    assert f"bits per character: {expected.bits:.4f}" in out
    assert "sentences: 2, words: 3, characters: 7" in out
    assert "1 empty, 1 with characters outside the alphabet, 0 too long" in out


def test_wrong_files_are_one_line(text, tmp_path, monkeypatch, capsys):
    empty = tmp_path / "empty.txt"
    empty.touch()
    for arguments, word in (
        (("train", empty, tmp_path / "run"), "no usable line"),
        (("train", tmp_path / "none", tmp_path / "run"), "No such file"),
        (("train", text, tmp_path / "run", "--config", tmp_path / "none"), "check the path"),
        (("score", tmp_path / "none", text), "no such language model folder"),
        (("score", tmp_path, text), "lm.yaml"),
    ):
        code, _, err = run_main(monkeypatch, capsys, "lm", *arguments)
        assert code == 1 and word in error_line(err)
