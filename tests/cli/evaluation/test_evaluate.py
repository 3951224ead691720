"""The command `las evaluate`: its reports, and what cannot be scored."""

import dataclasses
import json
import shutil

import pytest
from lhotse import CutSet
from speech import (
    error_line,
    run_config,
    sentences,
    write_manifest,
)

from las.storage.settings import save_settings


def test_evaluate_writes_reports(las, model, manifest, tmp_path):
    prefix = tmp_path / "reports" / "dev"
    status, out, err = las("evaluate", model, manifest, "--output", prefix, "--check-batching")
    assert (status, err) == (0, "")
    report = json.loads((tmp_path / "reports" / "dev.json").read_text())
    assert report["cer"] > 0 and 50 < report["wer"] <= 10_000  # percent, of an untrained model
    low, high = report["wer_interval"]
    assert low <= report["wer"] <= high
    assert len(report["utterances"]) == 6
    errors = sum(
        u["substitutions"] + u["deletions"] + u["insertions"] for u in report["utterances"]
    )
    assert report["wer"] == pytest.approx(100 * errors / report["words"])
    assert report["batching"]["differ"] == [] and report["batching"]["largest"] < 1e-4
    assert report["model_info"] == {"step": "0", "licence": "none"}
    assert report["manifest"] == "part.jsonl.gz" and report["search"] == "greedy"
    assert report["command"].startswith("las evaluate ")
    assert "batched and single: 6 of 6 texts equal" in out
    assert report["precision"] == "float32"
    text = (tmp_path / "reports" / "dev.txt").read_text()
    assert f"WER  {report['wer']:6.2f} %" in text and text.startswith(out.splitlines()[0])


def test_evaluate_with_another_precision(las, model, manifest, tmp_path):
    prefix = tmp_path / "halves"
    status, _, err = las("evaluate", model, manifest, "--output", prefix, "--precision", "bfloat16")
    assert (status, err) == (0, "")
    assert json.loads((tmp_path / "halves.json").read_text())["precision"] == "bfloat16"
    status, _, err = las("evaluate", model, manifest, "--output", prefix, "--precision", "half")
    assert status == 2 and "half" in err


def test_evaluate_writes_beside_the_model(las, model, manifest, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    status, _, _ = las("evaluate", folder, manifest, "--batch-seconds", 1)
    assert status == 0
    assert {p.name for p in folder.glob("evaluation*")} == {
        "evaluation-part.txt",
        "evaluation-part.json",
    }


def test_what_cannot_be_scored(las, idle, model, manifest, tmp_path):
    cuts = list(CutSet.from_file(manifest))
    empty = [c.map_supervisions(lambda s: dataclasses.replace(s, text=" ")) for c in cuts]
    alone = [c.map_supervisions(lambda s: dataclasses.replace(s, speaker="one")) for c in cuts]
    for name, part, words in (
        ("repeated", [*cuts, cuts[0]], "occurs more than once"),
        ("empty", empty, "the references of all 6 utterances are empty"),
        ("alone", alone, "there are not two speakers"),
    ):
        path = tmp_path / f"{name}.jsonl.gz"
        CutSet.from_cuts(part).to_file(path)
        for command in ("calibrate",) if name == "alone" else ("evaluate", "tune"):
            status, _, err = las(command, model, path, "--output", tmp_path / "r")
            assert status == 1 and words in error_line(err)
            assert name == "alone" or str(path) in err
        if name != "alone":
            config = tmp_path / "config.yaml"
            save_settings(run_config(manifest, tmp_path / "run", path), config)
            status, _, err = las("train", config)
            assert status == 1 and f"{path}: " in error_line(err) and words in err


def test_audio_that_is_gone(las, model, tmp_path):
    manifest = write_manifest(tmp_path, sentences(2))
    shutil.rmtree(tmp_path / "audio")
    status, _, err = las("evaluate", model, manifest)
    assert status == 1 and "no such file" in error_line(err)
