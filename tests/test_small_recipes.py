"""The scripts of ``recipes/an4`` and ``recipes/demo`` from their first line to their last."""

import shutil

import pytest
from recipe import (
    DEMO,
    ROOT,
    TINY,
    copy_recipe,
    librispeech_part,
    run_recipe,
    summary_names,
    write_an4,
)


def test_an4_runs_to_its_end(tmp_path):
    write_an4(tmp_path / "an4")
    copy_recipe(tmp_path, "an4")
    config = tmp_path / "recipes/an4/conf/lm.yaml"
    config.write_text(
        config.read_text()
        .replace("steps: 500", "steps: 4")
        .replace("dev_every: 10", "dev_every: 3")
    )
    done = run_recipe(tmp_path, "an4", tmp_path / "an4", *TINY)
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
