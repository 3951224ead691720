"""The CUDA sources, compiled: as C++ for the emulator of ``emulator/``, and by nvcc for a GPU."""

import ctypes
import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from las_kernels import build, cuda

EMULATOR = Path(__file__).parent / "emulator"


def library(kind: str) -> ctypes.CDLL:
    """``csrc/<kind>_cuda.cu`` on a CPU; skips the test where there is no compiler."""
    headers = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(EMULATOR.glob("*.h"))))
    try:
        compiler = build.cxx()
        command = [compiler, "-std=c++17", "-O1", "-fPIC", f"-I{EMULATOR}", "-x", "c++"]
        command.append(f"-DKEY={headers.hexdigest()[:16]}")  # the cache does not know the headers
        build._ninja()
    except build.BuildError as error:
        pytest.skip(str(error))
    return build.load(f"{kind}_cuda_emulated", cuda.steps(command, kind), [compiler, "-shared"])


def spills(kind: str, arch: str, which: int, folder: Path) -> list[tuple[str, str]]:
    """Bytes of stack and of spilled registers of every kernel; skips the test without nvcc."""
    try:
        step = cuda.steps(cuda.compiler(arch), kind)[which]
    except build.BuildError as error:
        pytest.skip(str(error))
    command = [*step.command, "-cubin", "-Xptxas=-v", "-Werror=all-warnings"]
    done = subprocess.run(
        [*command, "-o", folder / "a.cubin", step.source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", done.stderr)
