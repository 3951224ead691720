"""The CUDA sources, compiled as C++ for the emulator of ``emulator/``."""

import ctypes
import hashlib
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
