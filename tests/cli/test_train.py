"""The command `las train`: manifests, settings and files that are not valid."""

import yaml
from lhotse import CutSet, RecordingSet
from speech import (
    error_line,
    run_config,
)

from las.storage.settings import save_settings


def test_manifests_that_are_not_right(las, model, manifest, tmp_path):
    (tmp_path / "text.jsonl.gz").write_text("a text\n")
    RecordingSet.from_recordings(cut.recording for cut in CutSet.from_jsonl(manifest)).to_file(
        tmp_path / "recordings.jsonl.gz"
    )
    for path, words in (
        (tmp_path / "missing.jsonl.gz", "no such manifest"),
        (tmp_path, "no such manifest"),
        (tmp_path / "text.jsonl.gz", "not a manifest"),
        (tmp_path / "recordings.jsonl.gz", "not a manifest of utterances"),
    ):
        config = run_config(path, tmp_path / "run")
        save_settings(config, tmp_path / "config.yaml")
        for arguments in (("evaluate", model, path), ("train", tmp_path / "config.yaml")):
            status, _, err = las(*arguments)
            line = error_line(err)
            assert status == 1 and str(path) in line and words in line


def test_unknown_settings_suggest_the_right_one(las, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"training": {"learning_rat": 1.0}}))
    status, _, err = las("train", config)
    line = error_line(err)
    assert status == 1 and "unknown setting `training.learning_rat`" in line
    assert "did you mean `training.learning_rate`?" in line
    config.write_text("training: {}\n")
    for override, words in (
        ("training.epoch=3", "did you mean `training.epochs`?"),
        ("training.epochs=many", "training.epochs"),
        ("training.epochs", "key=value"),
    ):
        status, _, err = las("train", config, override)
        assert status == 1 and words in error_line(err)


def test_configurations_that_are_none(las, tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\0")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    for name in ("missing.yaml", "binary.yaml", "list.yaml", "broken.yaml", "."):
        status, _, err = las("train", tmp_path / name)
        assert status == 1 and str(tmp_path / name) in error_line(err)
