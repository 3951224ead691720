"""The general model's recipe: errors in one line, and a configuration that fits the mini one."""

import subprocess
from pathlib import Path

import pytest

from las import config as configuration
from las.config import RunConfig

ROOT = Path(__file__).parents[1]


def test_it_goes_on_from_the_mini_model():
    mini, general = (
        configuration.load(RunConfig, ROOT / f"recipes/{name}.yaml")
        for name in ("librispeech/conf/mini", "general/conf/general")
    )
    assert general.model_settings() == mini.model_settings()


@pytest.mark.parametrize("missing", [None, "mini", "train-clean-5", "train", "etc"])
def test_what_is_missing_is_named(tmp_path, missing):
    folders = ["mini", "libri/train-clean-5", "ocean/train", "an4/etc"]
    for folder in folders:
        if not folder.endswith(missing or "none"):
            (tmp_path / folder).mkdir(parents=True)
    arguments = [tmp_path / name for name in ("mini", "libri", "ocean", "an4")]
    done = subprocess.run(
        ["bash", ROOT / "recipes/general/run.sh", *(arguments if missing else arguments[:3])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert (f"{missing}\n" if missing else "usage:") in done.stderr
