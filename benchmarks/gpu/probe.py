"""What a machine has and what it lacks: asked before anything else runs."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "triton", "numpy", "pytest", "hypothesis")  # without which nothing goes
OLDEST = (8, 0)  # compute capability
# What pip calls them, where that is another name.
PACKAGES = {"yaml": "PyYAML", "xdist": "pytest-xdist"}
# For a machine that has torch, triton, torchaudio, pytest and PyYAML and cannot install anything.
WHEELS = (
    "pydantic==2.14.4",
    "pydantic_core==2.50.5",
    "annotated_types",
    "typing_inspection",
    "typing_extensions",
    "safetensors",
    "hypothesis",
    "sortedcontainers",
)
DOWNLOAD = (
    "pip download --no-deps --only-binary=:all: --python-version 3.12 "
    "--platform manylinux_2_17_x86_64 -d .whl " + " ".join(WHEELS)
)


def lacks(packages: tuple[str, ...]) -> list[str]:
    """Those that are not installed, as pip calls them."""
    return [PACKAGES.get(x, x) for x in packages if importlib.util.find_spec(x) is None]


def unpack_wheels(wheels: Path, site: Path) -> None:
    """Make the wheels that were brought along importable, here and in programs started here."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(site)
    if site.exists():
        sys.path.insert(0, str(site))
        path = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(site), *([path] if path else [])])
        importlib.invalidate_caches()


def fingerprint() -> str:
    """Of the code that is measured: numbers of another are not to be mixed with its own."""
    digest = hashlib.sha256()
    for folder in ("benchmarks", "kernels", "las"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".cu", ".cuh", ".h", ".cpp"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def ask(*command: str) -> str:
    """The first line that a program prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"none ({type(error).__name__})"
    return (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[0]


def probe(path: Path) -> int:
    """Write what there is as JSON, with an "error" if it will not do. Uses the GPU."""
    found = look()
    path.write_text(json.dumps(found, indent=1) + "\n")
    for key, value in found.items():
        print(f"machine: {key}: {value}")
    return 0


def look() -> dict[str, Any]:
    """What there is."""
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return {"error": f"torch {torch.__version__} is a build without CUDA: install one with"}
        return {"error": "torch finds no GPU"}
    capability = torch.cuda.get_device_capability()
    name = torch.cuda.get_device_name()
    if capability < OLDEST:
        oldest, here = (".".join(map(str, x)) for x in (OLDEST, capability))
        return {"error": f"it needs a GPU of compute capability {oldest}; {name} has {here}"}
    torch.zeros(1, device="cuda").add_(1)
    torch.cuda.synchronize()
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    found: dict[str, Any] = {
        "device": name,
        "capability": ".".join(map(str, capability)),
        "multiprocessors": properties.multi_processor_count,
        "cache": properties.L2_cache_size,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "code": fingerprint(),
        "no CUDA kernels": no_cuda_kernels(),
    }
    for package in ("torch", "triton", "numpy", "pytest", "pytest-xdist", "pydantic", "torchaudio"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    for tool in ("ncu", "compute-sanitizer"):
        found[tool] = shutil.which(tool) or "none"
    state = "clocks.sm,clocks.mem,temperature.gpu,power.draw,compute_mode,driver_version"
    found["nvidia-smi"] = ask("nvidia-smi", f"--query-gpu={state}", "--format=csv,noheader")
    return found


def no_cuda_kernels() -> str | None:
    """Why the kernels in CUDA C++ cannot be built here; None where they can."""
    from las_kernels import jit_build
    from las_kernels.cuda import attention_step as cuda_step

    try:
        cuda_step.nvcc()
        jit_build._ninja()
        jit_build.cxx()
    except jit_build.BuildError as error:
        return str(error)
    return None
