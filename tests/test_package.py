"""The package as installed: what it imports, and which way."""

import subprocess
import sys
from pathlib import Path

import las

ROOT = Path(__file__).parents[1]


def test_imports_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None; "
        "import las.cli.main, las.model.las, las.transcription.transcriber; "
        "import las.training.trainer, las_kernels; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


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
