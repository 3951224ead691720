"""The wheel, installed, in an empty folder: what it needs is in it.

`tests/install.sh` does the same from PyPI with any Python; its last runs are in
`tests/results/install.json`.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from recipe import ROOT, TINY
from speech import sentences, write_folder

import las

CLIP = Path(las.__file__).parent / "samples/503-1-0004.flac"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """An environment with the wheel, and the packages of the tests but not their source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env/bin/python"
    (wheel,) = (folder / "dist").iterdir()
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "-q", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    (site,) = (folder / "env/lib").glob("python*/site-packages")
    # A path file inside a folder that a path file names is not read: the tree stays out of reach.
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "empty").mkdir()
    return folder


def run(installed: Path, *arguments: object) -> str:
    done = subprocess.run(
        [installed / "env/bin" / str(arguments[0]), *map(str, arguments[1:])],
        cwd=installed / "empty",
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(installed),
            "XDG_CACHE_HOME": str(installed / "cache"),  # the kernels are built anew
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_it_is_the_wheel(installed):
    code = "import las, las_kernels; print(las.__file__); print(las_kernels.__file__)"
    for path in run(installed, "python", "-c", code).splitlines():
        assert Path(path).is_relative_to(installed)


def test_it_has_the_page_of_the_server(installed):
    pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
    run(installed, "python", "-c", "from las.serve import assets; assets.router()")


def test_it_transcribes_and_builds_its_kernels(installed):
    assert run(installed, "las", "transcribe", CLIP) == "WHAT'S THE WEATHER IN PARIS ON TUESDAY\n"
    assert list((installed / "cache").rglob("*.so"))


def test_it_trains_a_recipe(installed):
    write_folder(installed / "empty/mine", sentences(6))
    config = "recipes/an4/conf/las.yaml"  # found in the wheel
    run(installed, "las", "prepare", "folder", "mine", "data", "--like", config)
    data = ["data.train=data/mine.jsonl.gz", "training.output=run"]
    run(installed, "las", "train", config, *data, *TINY)
    assert (installed / "empty/run/model/model.safetensors").is_file()
