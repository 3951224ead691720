"""The scripts of ``recipes/an4`` and ``recipes/demo`` from their first line to their last."""

import shutil
from pathlib import Path

import pytest
import soundfile
from recipe import DEMO, ROOT, TINY, copy_recipe, librispeech_part, run_recipe, summary_names


@pytest.fixture
def an4(tmp_path) -> Path:
    """CMU's layout: nine speakers to train on, of whom eight are carved out, and one to test on."""
    root = tmp_path / "an4"
    for part, source, count in (("train", "train", 9), ("test", "test", 1)):
        speakers = sorted(p for p in (DEMO / source).iterdir() if p.is_dir())[:count]
        names, lines = [], []
        for speaker in speakers:
            (texts,) = speaker.rglob("*.trans.txt")
            for line in texts.read_text().splitlines()[:2]:
                id, _, text = line.partition(" ")
                samples, rate = soundfile.read(texts.with_name(f"{id}.opus"))
                name = f"{part}/{speaker.name}/an{len(names)}-{speaker.name}-b"
                path = root / "wav" / f"{name}.sph"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, samples, rate, format="NIST", subtype="PCM_16")
                names.append(name)
                lines.append(f"<s> {text} </s> ({path.stem})")
        (root / "etc").mkdir(exist_ok=True)
        (root / f"etc/an4_{part}.fileids").write_text("".join(f"{n}\n" for n in names))
        (root / f"etc/an4_{part}.transcription").write_text("".join(f"{n}\n" for n in lines))
    return root


def test_an4_runs_to_its_end(tmp_path, an4):
    copy_recipe(tmp_path, "an4")
    config = tmp_path / "recipes/an4/conf/lm.yaml"
    config.write_text(
        config.read_text()
        .replace("steps: 500", "steps: 4")
        .replace("dev_every: 10", "dev_every: 3")
    )
    done = run_recipe(tmp_path, "an4", an4, *TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert summary_names(done.stdout) == ["dev", "test-tuned-lm", "test-tuned", "test"]
    assert {p.name for p in (tmp_path / "recipes/an4/runs/las").glob("compare-*.json")} == {
        f"compare-{name}.json" for name in ("test-tuned", "test-tuned-lm", "tuned-lm")
    }


def test_the_demo_recipe_runs_to_its_end(tmp_path):
    copy_recipe(tmp_path, "demo")
    for part, speakers in (("train", 3), ("dev", 1), ("test", 1)):
        librispeech_part(tmp_path / "recipes/demo/corpus", part, speakers, 3)
    shutil.copy(DEMO / "SPEAKERS.TXT", tmp_path / "recipes/demo/corpus")
    done = run_recipe(tmp_path, "demo", *TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert summary_names(done.stdout) == ["dev", "test"]
    assert "batched and single: 3 of 3 texts equal" in done.stdout


@pytest.mark.parametrize("name", ["librispeech", "general", "an4", "demo"])
def test_help_is_no_error(name):
    done = run_recipe(ROOT, name, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert f"recipes/{name}/run.sh" in done.stdout
    assert "set -euo" not in done.stdout


def test_a_setting_that_is_none():
    done = run_recipe(ROOT, "demo", "epochs")
    assert done.returncode == 2 and done.stderr.startswith("error: unknown argument 'epochs'")
