"""Settings in files and overrides; each mistake is one line with the cure."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from las import config_files
from las.config import (
    ListenerConfig,
    ModelConfig,
    RunConfig,
    SpecAugmentConfig,
    TrainingConfig,
)
from las.config_errors import setting_names
from las.errors import LASError
from las.storage.settings import save_settings


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message(path: Path, overrides=(), kind=RunConfig) -> str:
    """The error of loading, which is one line."""
    with pytest.raises(LASError) as caught:
        config_files.load(kind, path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- files ----------------------------------------------------------------------------------


def test_an_empty_file_is_all_defaults(write):
    assert config_files.load(RunConfig, write("")) == RunConfig()
    assert config_files.load(RunConfig, write("# nothing but this\n")) == RunConfig()


def test_values_are_read_and_the_rest_stays(write):
    loaded = config_files.load(
        RunConfig,
        write("listener: {layers: 4}\ntraining:\n  learning_rate: 1e-3\n  device: cpu\n"),
    )
    assert loaded.listener == ListenerConfig(layers=4)
    assert loaded.training == TrainingConfig(learning_rate=0.001, device="cpu")
    assert loaded.model_settings() == ModelConfig(listener=ListenerConfig(layers=4))


@given(
    layers=st.integers(4, 9),
    stack=st.sampled_from([1, 2, 4]),
    taps=st.integers(0, 20),
    rate=st.floats(1e-9, 1e3),
    share=st.floats(0, 1),
    output=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8),
    masks=st.none() | st.builds(SpecAugmentConfig, time_width=st.integers(0, 99)),
    speeds=st.lists(st.floats(0.5, 2.0), min_size=1, max_size=4),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_round_trip(tmp_path, layers, stack, taps, rate, share, output, masks, speeds):
    run = RunConfig.model_validate(
        {
            "listener": {"layers": layers, "stack": stack, "dropout": share},
            "attention": {"taps": 2 * taps + 1},
            "frontend": {"specaugment": masks},
            "data": {"speeds": speeds},
            "training": {"learning_rate": rate, "output": output},
        }
    )
    save_settings(run, tmp_path / "out.yaml")
    assert config_files.load(RunConfig, tmp_path / "out.yaml") == run
    assert [p.name for p in tmp_path.iterdir()] == ["out.yaml"]


def test_a_missing_file(tmp_path):
    assert str(tmp_path / "no.yaml") in message(tmp_path / "no.yaml")


def test_a_folder(tmp_path):
    assert str(tmp_path) in message(tmp_path)


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "3", "[]", "false"])
def test_yaml_that_is_no_mapping(write, text):
    assert "expected `section: settings`" in message(write(text))


@pytest.mark.parametrize("text", ["{", "a: b: c", "\tx: 1", "!!python/object/apply:os.system [a]"])
def test_what_is_no_yaml(write, text):
    path = write(text)
    assert message(path).startswith(f"{path}: not YAML (")


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert "not YAML" in message(path)


# --- unknown keys ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("trainig: {epochs: 2}", "`training`"),
        ("listner: {}", "`listener`"),
        ("listener: {layres: 2}", "`listener.layers`"),
        ("attention: {head: 2}", "`attention.heads`"),
        ("speller: {embeding: 3}", "`speller.embedding`"),
        ("training: {learning-rate: 1}", "`training.learning_rate`"),
        ("training: {lerning_rate: 1}", "`training.learning_rate`"),
        ("training: {Epochs: 1}", "`training.epochs`"),
        ("data: {batch_second: 1}", "`data.batch_seconds`"),
        ("frontend: {specaugment: {time_mask: 2}}", "`frontend.specaugment.time_masks`"),
        ("frontend: {specaugment: {freq_masks: 2}}", "`frontend.specaugment.frequency_masks`"),
        # the right name in the wrong place
        ("epochs: 3", "`training.epochs`"),
        ("epoch: 3", "`training.epochs`"),
        ("train: train.jsonl", "`data.train`"),
        ("n_mels: 40", "`frontend.n_mels`"),
        ("training: {heads: 4}", "`attention.heads`"),
        ("data: {seed: 4}", "`training.seed`"),
        ("frontend: {time_masks: 0}", "`frontend.specaugment.time_masks`"),
        ("layers: 3", "`listener.layers` or `speller.layers`"),
        # initials, and words of names
        ("training: {lr: 1}", "`training.learning_rate`"),
        ("lr: 1", "`training.learning_rate`"),
        ("training: {WD: 1}", "`training.weight_decay`"),
        ("data: {batch_size: 1}", "`data.batch_seconds`"),
        ("training: {batch_size: 1}", "`data.batch_seconds`"),
        ("batch: 1", "`data.batch_seconds` or `data.batch_utterances`"),
    ],
)
def test_an_unknown_key_suggests_the_right_one(write, text, cure):
    path = write(text)
    assert message(path).startswith(f"{path}: unknown setting `")
    assert message(path).endswith(f"did you mean {cure}?")


def test_every_setting_is_found_from_the_top(write):
    keys = setting_names(RunConfig)
    assert {"training.epochs", "frontend.specaugment.time_width", "alphabet"} < set(keys)
    for key in keys:
        name = key.rpartition(".")[2]
        if name != key:
            assert f"`{key}`" in message(write(f"{name}: 1"))


def test_a_key_like_no_other_lists_what_is_known(write):
    assert "known here: alphabet, text, pieces, frontend," in message(write("zzz: 1"))
    assert "known here: training.output, training.init" in message(write("training: {qqq: 1}"))
    for name in ("encoder", "model", "optimizer"):  # near to `silence`, `n_mels`, `time_share`
        assert "known here" in message(write(f"{name}: 1"))


def test_further_errors_are_counted(write):
    assert message(write("training: {epochs: 0, seed: -1, qqq: 2}")).endswith("(and 2 more)")


def test_training_settings_are_unknown_to_a_model(write):
    assert "unknown setting `training`" in message(write("training: {}"), kind=ModelConfig)


# --- wrong values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("training: {epochs: many}", ["`training.epochs`", "integer", "'many'"]),
        ("training: {epochs: 0}", ["`training.epochs`", "greater than or equal to 1", "is 0"]),
        ("training: {epochs: 1.5}", ["`training.epochs`", "integer", "1.5"]),
        ("training: {device: gpu}", ["`training.device`", "'cuda'", "'gpu'"]),
        ("training: {ctc: 1.1}", ["`training.ctc`", "less than or equal to 1"]),
        ("training: {learning_rate: .nan}", ["`training.learning_rate`", "finite"]),
        ("training: {learning_rate: .inf}", ["`training.learning_rate`", "finite"]),
        ("training: 3", ["`training`", "is 3"]),
        ("training:", ["`training`"]),
        ("data: {speeds: [1.0, 3.0]}", ["`data.speeds.1`", "3.0"]),
        ("data: {speeds: []}", ["`data.speeds`"]),
        ("listener: {reduction: 3}", ["`listener.reduction`", "1, 2, 4 or 8"]),
        ("listener: {layers: 2}", ["`listener`", "reduction 4", "needs at least 3 layers, not 2"]),
        ("listener: {stack: 4, reduction: 2}", ["`listener`", "stack 4", "reduction 2"]),
        ("attention: {heads: 3}", ["`attention`", "heads 3", "width 256"]),
        ("attention: {taps: 30}", ["`attention`", "odd", "30"]),
        ("frontend: {win_length: 600}", ["`frontend`", "win_length 600", "n_fft 512"]),
        ("alphabet: ABCA", ["alphabet 'ABCA'", "repeats"]),
        ('alphabet: ""', ["`alphabet`"]),
        ("1: 2", ["`1`", "strings"]),
        ('"two\\nlines": 1', ["`two lines`"]),
        ('training: {device: "two\\nlines"}', ["`training.device`", r"'two\nlines'"]),
    ],
)
def test_a_wrong_value_is_one_line(write, text, parts):
    path = write(text)
    said = message(path)
    assert said.startswith(f"{path}: ")
    for part in parts:
        assert part in said


# --- overrides ------------------------------------------------------------------------------


def test_overrides(write):
    path = write("training: {epochs: 2, seed: 9}\ndata:\n")
    loaded = config_files.load(
        RunConfig,
        path,
        [
            "training.epochs=5",
            "training.epochs=7",
            "data.speeds=[0.9, 1.0]",
            "frontend.specaugment=null",
            "training.output=a=b",
            "alphabet= ABC",
        ],
    )
    assert (loaded.training.epochs, loaded.training.seed) == (7, 9)
    assert loaded.data.speeds == [0.9, 1.0]
    assert loaded.frontend.specaugment is None
    assert loaded.training.output == "a=b"
    assert loaded.alphabet == " ABC"


def test_an_override_makes_the_section_below(write):
    loaded = config_files.load(RunConfig, write(""), ["frontend.specaugment.time_masks=0"])
    assert loaded.frontend.specaugment == SpecAugmentConfig(time_masks=0)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("training.epochs", "key=value"),
        ("=3", "key=value"),
        (" =3", "key=value"),
        ("alphabet.x.y=3", "'x' is a value"),
        ("training.epochs={", "not YAML"),
        ("training.epochs=x", "`training.epochs`"),
        ("training.epoch=3", "did you mean `training.epochs`?"),
        ("epochs=3", "did you mean `training.epochs`?"),
        ("training..epochs=3", "unknown setting"),
        ("a\nb.c\nd=3", "unknown setting `a b`"),
    ],
)
def test_a_wrong_override_is_one_line(write, override, part):
    before = ["alphabet.x=1"] if override.startswith("alphabet") else []
    assert part in message(write(""), [*before, override])


def test_what_is_wrong_on_the_command_line_is_not_laid_to_the_file(write):
    path = write("training: {epochs: 3}")
    for override in ("training.lr=1", "speler.width=3", "training.epochs=0", "training=3"):
        assert message(path, [override]).startswith("command line: ")
    assert message(write("training: {epochs: 0}"), ["training.seed=3"]).startswith(f"{path}: ")


def test_no_value_is_an_empty_text_where_texts_are(write):
    path = write("data: {train: a.jsonl, dev: b.jsonl}")
    assert config_files.load(RunConfig, path, ["data.dev="]).data.dev == ""
    assert config_files.load(RunConfig, write("data:\n  dev:\n")).data.dev == ""
    assert (
        config_files.load(RunConfig, path, ["frontend.specaugment="]).frontend.specaugment is None
    )
    assert "`training.epochs`" in message(path, ["training.epochs="])
    assert message(path, ["training.epochs="]).endswith("(it is empty)")
    assert "at least 1 character" in message(path, ["alphabet="])


def test_a_section_is_not_a_value(write):
    for override in ("listener=3", "listener="):
        assert "is a section: give its settings one by one, as `listener.layers`" in message(
            write(""), [override]
        )


def test_a_training_set_is_one_place_or_several(write):
    def data(text, *overrides):
        return config_files.load(RunConfig, write(text), overrides).data

    assert data("data: {train: a.shards}").train == "a.shards"
    assert data("data: {train: }").train == ""
    several = data("data: {train: [a.shards, b], weights: [2, 0.5]}")
    assert (several.train, several.weights) == (["a.shards", "b"], [2.0, 0.5])
    assert data("{}", "data.train=[a, b]").train == ["a", "b"]
    assert data("{}", "data.train=12: # {}").train == "12: # {}"
    for text, words in (
        ("data: {train: 3}", "`data.train`: must be a manifest or a shard folder, or a list"),
        ("data: {train: []}", "must be a manifest or a shard folder"),
        ("data: {train: [a, 2]}", "must be a manifest or a shard folder"),
        ("data: {train: [a, b], weights: [1]}", "1 weights for 2 shard folders of train"),
        ("data: {train: a, weights: [0]}", "`data.weights.0`: Input should be greater than 0"),
    ):
        with pytest.raises(LASError) as caught:
            data(text)
        assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1
