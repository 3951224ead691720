"""A training that goes on from a model: its architecture, what is kept beside it, epoch 0."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from speech import (
    equal,
    error_line,
    log_rows,
    run_config,
    run_main,
    small_model,
    train,
)

from las import config_files as configuration
from las.config import RunConfig, SearchConfig
from las.data.dataset import evaluation_batches
from las.data.manifests import read_manifest
from las.decoding.presets import stored_search
from las.errors import LASError
from las.lm.config import LMModelConfig
from las.lm.lstm import LanguageModel
from las.model.folder import bundled, model_settings, read_info
from las.model.las import LAS
from las.storage import checkpoint
from las.storage.settings import save_settings
from las.training import finetuning
from las.training.trainer import Trainer
from las.training.validation import validate
from las.transcription.confidence import CONFIDENCE, Calibration


@pytest.fixture
def given(tmp_path):
    """A model that takes nothing from the defaults: other sizes, other dropout."""
    folder = tmp_path / "given"
    small_model(listener__dropout=0.15, attention__kind="additive").save_pretrained(folder)
    return folder


def minimal(corpus, output, init, dev="", **sections) -> RunConfig:
    """What a user writes: nothing of the model."""
    data = {"train": str(corpus), "dev": str(dev), "batch_utterances": 8, "workers": 0}
    loop = {"output": str(output), "init": str(init), "epochs": 2, "device": "cpu"}
    stated = {"data": data, "training": {**loop, **sections.pop("training", {})}, **sections}
    return RunConfig.model_validate(stated)


# --- whose settings ---------------------------------------------------------------------------


def test_what_is_not_stated_is_the_models(corpus, given, tmp_path):
    trainer = Trainer(minimal(corpus, tmp_path / "run", given))
    model = model_settings(given)
    assert trainer.config.model_settings() == model
    assert equal(trainer.model.state_dict(), LAS.from_pretrained(given).state_dict())


def test_what_no_weight_depends_on_may_be_stated(corpus, given, tmp_path):
    sections = {
        "listener": {"dropout": 0.4, "width": 32},  # the one as it likes, the other as it is
        "frontend": {"specaugment": {"time_width": 7}},
        "longest_seconds": 12.5,
    }
    found = finetuning.resolved(minimal(corpus, tmp_path / "run", given, **sections))
    assert found.listener.dropout == 0.4 and found.frontend.n_mels == 24
    # It was off: the rest of it has the defaults.
    assert (found.frontend.specaugment.time_width, found.frontend.specaugment.time_masks) == (7, 2)
    assert found.longest_seconds == 12.5
    for name in ("speller", "attention", "alphabet", "text"):
        assert getattr(found, name) == getattr(model_settings(given), name)


def test_a_section_is_changed_in_part_or_turned_off():
    settings = {"training": {"init": "bundled"}, "frontend": {"specaugment": {"time_masks": 1}}}
    found = finetuning.resolved(RunConfig.model_validate(settings)).frontend.specaugment
    bundle = model_settings(bundled()).frontend.specaugment
    assert found == bundle.model_copy(update={"time_masks": 1}) != bundle
    settings["frontend"] = {"specaugment": None}
    assert finetuning.resolved(RunConfig.model_validate(settings)).frontend.specaugment is None


def test_all_that_does_not_fit_is_named_with_old_and_new(corpus, given, tmp_path):
    sections = {
        "alphabet": " AB",
        "listener": {"width": 64, "layers": 2, "stack": 2},
        "speller": {"width": 7, "dropout": 0.5},
        "text": {"language": "de"},
    }
    with pytest.raises(LASError) as caught:
        Trainer(minimal(corpus, tmp_path / "run", given, **sections))
    message = str(caught.value)
    assert message.startswith(f"{given}: ") and len(message.splitlines()) == 1
    inside = message[message.index("(") + 1 : message.index(")")]
    assert inside.split("; ") == [
        "alphabet: ' ''ABCDEFGHIJKLMNOPQRSTUVWXYZ' -> ' AB'",
        "listener.width: 32 -> 64",
        "speller.width: 48 -> 7",
    ]


def test_settings_that_fit_beside_the_rest_of_the_model_alone(corpus, given, tmp_path):
    """Two layers are too few for the default stack, and enough for the model's."""
    path = tmp_path / "run.yaml"
    stated = minimal(corpus, tmp_path / "run", given).model_dump(mode="json", exclude_unset=True)

    def load(*overrides, **sections):
        path.write_text(yaml.safe_dump({**stated, **sections}))
        return finetuning.resolved(finetuning.load(path, overrides))

    assert load(listener={"layers": 2}).model_settings() == model_settings(given)
    assert load("listener.layers=2", "speller.dropout=0.3").speller.dropout == 0.3
    for overrides, named in (
        (("listener.layers=1", "speller.width=7"), ["layers: 2 -> 1", "speller.width: 48 -> 7"]),
        (("alphabet= ab",), ["alphabet: ' ''ABCDEFGHIJKLMNOPQRSTUVWXYZ' -> ' ab'"]),
    ):
        with pytest.raises(LASError, match=re.escape(f"{given}: a model of another")) as caught:
            load(*overrides)
        assert all(words in str(caught.value) for words in named)
    with pytest.raises(LASError, match=r"unknown setting `listener\.layer`"):
        load("listener.layer=3", "listener.layers=1")
    with pytest.raises(LASError, match=r"`alphabet`: .* string"):
        load("listener.layers=1", "alphabet.a=3")
    with pytest.raises(LASError, match="`speller`"):
        load("speller=3")


@pytest.mark.parametrize(
    ("there", "words"), [(False, "no such model folder"), (True, "it has no config.yaml")]
)
def test_what_is_no_model(corpus, tmp_path, there, words):
    if there:
        (tmp_path / "given").mkdir()
    with pytest.raises(LASError, match=f"given: .*{words}"):
        Trainer(minimal(corpus, tmp_path / "run", tmp_path / "given"))


def test_the_bundled_model_by_its_name(corpus, tmp_path):
    settings = minimal(corpus, tmp_path / "run", "bundled")
    assert finetuning.resolved(settings).model_settings() == model_settings(bundled())
    assert finetuning.text_settings("bundled") == model_settings(bundled())


def test_texts_are_prepared_as_the_model_of_a_yaml_writes_them(tmp_path):
    config = run_config("", tmp_path).model_copy(update={"alphabet": " ABC"})
    LAS(config.model_settings()).save_pretrained(tmp_path / "given")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"training": {"init": str(tmp_path / "given")}}))
    assert finetuning.text_settings(path).alphabet == " ABC"


def test_audio_that_either_training_heard(corpus, given, tmp_path):
    folder = tmp_path / "long"
    model = LAS.from_pretrained(given)
    for before, stated, longest in ((24.0, {}, 24.0), (24.0, {"longest_seconds": 9.0}, 9.0)):
        model.config = model.config.model_copy(update={"longest_seconds": before})
        model.save_pretrained(folder)
        trainer = Trainer(minimal(corpus, tmp_path / "run", folder, **stated))
        assert trainer.model.config.longest_seconds == longest
    heard = Trainer(minimal(corpus, tmp_path / "run", given)).model.config.longest_seconds
    assert heard == max(round(cut.duration, 1) for cut in read_manifest(corpus))


# --- from the first step to the last -----------------------------------------------------------


def test_the_command_trains_on_and_resumes(corpus, dev, given, tmp_path, monkeypatch, capsys):
    """By a YAML that says nothing of the model; the model it began from is then gone."""
    path, output = tmp_path / "finetune.yaml", tmp_path / "run"
    settings = minimal(corpus, output, given, dev, training={"evaluate_every": 2})
    stated = settings.model_dump(mode="json", exclude_unset=True)
    path.write_text(yaml.safe_dump(stated))
    before = validate(
        LAS.from_pretrained(given),
        evaluation_batches(read_manifest(dev), LAS.from_pretrained(given).text, sample_rate=8000),
        "cpu",
    ).score.wer
    status, out, err = run_main(monkeypatch, capsys, "train", path)
    assert status == 0, err
    first, *rest = log_rows(output)
    assert (first["step"], first["epoch"], first["dev"]["wer"]) == (0, 0, before)
    assert [row["epoch"] for row in rest if "dev" in row] == [2]
    assert f"epoch 0: dev WER {before:.2f} %" in out and "train loss" not in out.split("epoch 2")[0]
    assert f"dev WER {before:.2f} % before the training, " in out
    assert read_info(output / "model")["init"] == str(given)
    shutil.rmtree(given)
    status, out, err = run_main(monkeypatch, capsys, "train", path, "training.epochs=3")
    assert status == 0, err
    assert f"{given} was deleted" in out and f"dev WER {before:.2f} % before the training, " in out
    devs = [row["epoch"] for row in log_rows(output) if "dev" in row]
    assert devs == [0, 2, 3]
    status, _, err = run_main(monkeypatch, capsys, "train", path, "speller.width=7")
    assert status == 1
    assert f"{output / checkpoint.STATE}: belongs to a training with other settings" in err
    assert "(speller.width: 48 -> 7)" in error_line(err)


def test_a_stop_before_any_state_leaves_one_epoch_0(corpus, dev, given, tmp_path, monkeypatch):
    settings = minimal(corpus, tmp_path / "run", given, dev)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(settings)
    train(settings)
    assert [row["epoch"] for row in log_rows(tmp_path / "run") if "dev" in row] == [0, 1, 2]


def test_the_same_bits_as_with_every_setting_stated(corpus, given, tmp_path):
    """A YAML of before, which had to state the architecture; and no other bits by looking first."""
    train(minimal(corpus, tmp_path / "a", given, corpus, training={"average": 0}))
    full = {
        key: value
        for key, value in model_settings(given).model_dump(mode="json").items()
        if key != "longest_seconds"
    }
    train(minimal(corpus, tmp_path / "b", given, training={"average": 0}, **full))
    steps = [[r for r in log_rows(tmp_path / run) if "dev" not in r] for run in "ab"]
    assert steps[0] == steps[1] and steps[0]


def test_a_state_of_before_goes_on(corpus, given, tmp_path):
    """It had the defaults of what was not stated, of dropout, say, and no number of epoch 0."""
    output = tmp_path / "run"
    old = run_config(corpus, output, training__init=str(given), attention__kind="additive")
    train(old)
    path = output / checkpoint.STATE
    state = checkpoint.load(path)
    del state["format"], state["position"]["before"]
    checkpoint.save(path, state)
    sections = old.model_dump(mode="json", exclude={"listener": {"dropout"}})
    sections["training"]["epochs"] = 3
    trainer = train(RunConfig.model_validate(sections))
    assert trainer.config.listener.dropout == 0.0 and trainer.position.epoch == 3


def test_what_made_it_no_better_is_a_warning(corpus, dev, given, tmp_path, capsys):
    train(minimal(corpus, tmp_path / "run", given, dev, training={"learning_rate": 1e-9}))
    assert "WARNING: dev WER " in (out := capsys.readouterr().out)
    assert "the initial model is as good" in out


# --- what is kept beside the weights ----------------------------------------------------------


def keep(folder):
    """Search settings, a language model and a calibration."""
    config = LMModelConfig(alphabet=model_settings(folder).alphabet, width=4, embedding=4)
    LanguageModel(config).save_pretrained(folder / "lm")
    (folder / "search.yaml").write_text("beam: 4\nctc: 0.2\n")
    save_settings(Calibration(slope=2.0), folder / CONFIDENCE)


def test_search_and_language_models_come_along_and_calibration_does_not(
    corpus, given, tmp_path, capsys
):
    keep(given)
    final = tmp_path / "run/model"
    train(minimal(corpus, final.parent, given, training={"epochs": 1}))
    said = capsys.readouterr().out
    assert f"search.yaml, lm: copied from {given}; " in said
    assert f"{CONFIDENCE}: not copied from {given}" in said and "`las calibrate`" in said
    config, lm = stored_search(final)
    assert config == SearchConfig(beam=4, ctc=0.2) and lm is not None
    assert "lm_weight" not in config.model_fields_set  # as it was written
    assert not (final / CONFIDENCE).exists()


def test_settings_of_its_own_stay(given, tmp_path):
    keep(given)
    final = tmp_path / "model"
    final.mkdir()
    (final / "search.yaml").write_text("beam: 2\n")
    (line,) = finetuning.copy_search_settings(str(given), final)
    assert line.startswith(CONFIDENCE)
    assert (final / "search.yaml").read_text() == "beam: 2\n" and not (final / "lm").exists()


def test_search_that_is_not_right_is_left_behind_in_a_line(given, tmp_path):
    (given / "search.yaml").write_text("beam: 4\nlm_weight: 0.5\n")
    (line,) = finetuning.copy_search_settings(str(given), tmp_path / "model")
    assert "not copied" in line and "is missing" in line
    assert not (tmp_path / "model/search.yaml").exists()
    (given / "search.yaml").unlink()
    assert finetuning.copy_search_settings(str(given), tmp_path / "model") == []


# --- the recipe -------------------------------------------------------------------------------


def test_the_recipe_says_nothing_of_the_model():
    path = Path(__file__).parents[2] / "recipes/finetune/conf/finetune.yaml"
    config = configuration.load(RunConfig, path)
    assert config.training.init == "bundled"
    assert config.model_fields_set == {"data", "training"}
