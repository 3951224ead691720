"""Folders stay small, and no document or comment names what does not exist."""

import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("las", "kernels/las_kernels", "benchmarks")
MODULES = 14
# Records of what was: they name the modules of their time.
HISTORY = re.compile(r"results/|runs/|CHANGELOG\.md|RESULTS\.md|\.(jsonl?|log|txt)$")
DOTTED = re.compile(
    r"(?<![\w/.$-])((?:las|las_kernels|benchmarks)(?:\.[A-Za-z_]\w*)+)(?!\w*[/(]?\*)"
)
MADE = {"kernels/las_kernels/triton/tuned/sm_90.json"}  # written by benchmarks.kernels.tuning
PATHS = re.compile(r"(?<![\w./-])((?:las|kernels|benchmarks|recipes|tests|docs)/[\w./-]+\.\w+)\b")


def tracked(*kinds: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *kinds], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if name and not HISTORY.search(name)]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_are_small(package):
    for folder in [ROOT / package, *(ROOT / package).rglob("*/")]:
        modules = [p.name for p in folder.glob("*.py") if not p.name.startswith("__")]
        assert len(modules) <= MODULES, f"{folder}: {len(modules)} modules"


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one, or of a class in it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            fields = getattr(found, "model_fields", {})
            annotations = getattr(found, "__annotations__", {})
            if part in fields or part in annotations:
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def spoken(path: Path) -> str:
    """A document; or of a program what is not executed, comments and strings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    text = re.sub(r'\bf"[^"\n]*"', "", text)  # these hold code
    return "\n".join(re.findall(r'#[^\n]*|"""(?:.|\n)*?"""|"[^"\n]*"', text))


def test_names_in_documents_and_comments_exist():
    missing = []
    for path in tracked("*.md", "*.py", "*.sh", "*.toml", "*.yaml", "Makefile"):
        for name in sorted(set(DOTTED.findall(spoken(path)))):
            if name.rpartition(".")[2] in ("py", "yaml", "toml", "md", "json"):
                continue
            if not exists(name):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert not missing, "\n".join(missing)


def test_paths_in_documents_and_comments_exist():
    missing = []
    for path in tracked("*.md", "*.py", "*.sh", "*.toml", "*.yaml", "Makefile"):
        for name in sorted(set(PATHS.findall(spoken(path)))):
            if name in MADE or "NAME" in name:
                continue
            if not ((ROOT / name).exists() or (path.parent / name).exists()):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert not missing, "\n".join(missing)
