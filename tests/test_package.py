"""The package as installed: what it imports, and which way."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import las
from las.imports import EXTRAS

ROOT = Path(__file__).parents[1]


def test_imports_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None; "
        "import las.cli.main, las.model.las, las.transcription.transcriber; "
        "import las.training.trainer, las_kernels; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def without_extras(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``las`` as if the packages of the extras were not installed."""
    code = (
        "import sys\n"
        "from las.imports import EXTRAS\n"
        "sys.modules.update(dict.fromkeys(EXTRAS))\n"
        "from las.cli.main import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_transcription_needs_no_extra():
    done = without_extras("transcribe", ROOT / "las/samples/503-1-0004.flac")
    assert done.stdout == "WHAT'S THE WEATHER IN PARIS ON TUESDAY\n", done.stderr


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [(("prepare", "folder", ROOT, "data"), "lhotse", "train"), (("serve",), "fastapi", "serve")],
)
def test_a_missing_extra_is_named_in_one_line(command, package, extra):
    done = without_extras(*command)
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {package} is not installed, which this command needs: "
        f"pip install 'listen-attend-spell[{extra}]' "
        f"(in a checkout: pip install -e '.[{extra}]')\n",
    )


def test_every_extra_is_in_pyproject():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for package, extra in EXTRAS.items():
        name = package.replace("_", "-")  # of the distribution
        assert any(re.match(name + r"\b", requirement) for requirement in extras[extra])


def test_help_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['las', '--help']; "
        "from las.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("prepare", "train", "evaluate", "transcribe", "info"):
        assert command in done.stdout


def test_version_is_that_of_the_distribution():
    assert f'version = "{las.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_constraints_pin_every_dependency():
    pinned = (ROOT / "constraints.txt").read_text().lower()
    assert "torch==2.11.0\n" in pinned
    assert "torchaudio==2.11.0\n" in pinned
    numpy = next(line for line in pinned.splitlines() if line.startswith("numpy=="))
    assert tuple(map(int, numpy.removeprefix("numpy==").split(".")[:2])) < (2, 4)
