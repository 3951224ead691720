"""The package as installed: what it imports, and which way."""

import ast
import subprocess
import sys
from pathlib import Path

import las
import las_kernels

ROOT = Path(__file__).parents[1]


def imports(path: Path) -> set[str]:
    """Top-level names that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def test_kernels_know_nothing_of_speech():
    for path in Path(las_kernels.__file__).parent.rglob("*.py"):
        assert not any(n == "las" or n.startswith("las.") for n in imports(path)), path


def test_model_knows_nothing_of_files_and_data_nothing_of_the_model():
    package = Path(las.__file__).parent
    for name in ("frontend", "listener", "attention", "speller", "model", "search"):
        assert not imports(package / f"{name}.py") & {
            "las.audio.reader",
            "las.data.dataset",
            "las.data.corpora",
        }
    for name in ("data", "corpora", "audio", "text"):
        assert not imports(package / f"{name}.py") & {
            "las.model.las",
            "las.decoding.search",
            "las.training.trainer",
        }


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
