"""The CUDA sources, compiled: as C++ for the emulator of ``emulator/``, and by nvcc for a GPU."""

import ctypes
import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from cases import DEVICE
from torch import Tensor

from las_kernels import jit_build
from las_kernels.cuda import attention_step as cuda_step
from las_kernels.cuda import persistent_decoder
from las_kernels.cuda.persistent_decoder import LaunchContext

EMULATOR = Path(__file__).parent / "emulator"


PACKED = {
    "attention_step": cuda_step.PARAMS.size,
    "persistent_decoder": persistent_decoder.PARAMS_BYTES,
}


def library(kind: str, packed: int | None = None) -> ctypes.CDLL:
    """``csrc/<kind>.cu`` on a CPU; skips the test where there is no compiler."""
    headers = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(EMULATOR.glob("*.h"))))
    try:
        compiler = jit_build.cxx()
        command = [compiler, "-std=c++17", "-O1", "-fPIC", f"-I{EMULATOR}", "-x", "c++"]
        command.append(f"-DKEY={headers.hexdigest()[:16]}")  # the cache does not know the headers
        jit_build._ninja()
    except jit_build.BuildError as error:
        pytest.skip(str(error))
    sizes = cuda_step.sizes(kind, packed or PACKED[kind])
    steps = cuda_step.steps(command, kind)
    return jit_build.load(f"cuda_{kind}_emulated", steps, [compiler, "-shared"], sizes)


def where(
    library: ctypes.CDLL, processors: int = 3, limit: int = 1 << 17, descending: bool = False
):
    """Launches of the emulated ``persistent_decoder``: on how many blocks, in which order."""
    library.las_emulator_order(int(descending))
    return LaunchContext(library, processors, limit, 0)


def need(reason: str | None, what: str) -> None:
    """Skip a test that lacks a GPU or a compiler; fail where both are and it does not run."""
    if reason is None:
        return
    try:
        cuda_step.nvcc()
        jit_build._ninja()
        jit_build.cxx()
    except jit_build.BuildError:
        pytest.skip(f"{what} cannot run here: {reason}")
    if DEVICE == "cuda":
        pytest.fail(f"{what} does not run: {reason}")
    pytest.skip(f"{what} cannot run here: {reason}")


class Current:
    """In the place of ``torch.cuda.device_of``: whose device is the current one."""

    tensor: Tensor | None = None

    def __init__(self, tensor: Tensor):
        self.given = tensor

    def __enter__(self) -> None:
        Current.tensor = self.given

    def __exit__(self, *_: object) -> None:
        Current.tensor = None


def spills(kind: str, arch: str, which: int, folder: Path) -> list[tuple[str, str]]:
    """Bytes of stack and of spilled registers of every kernel; skips the test without nvcc.

    The PTX stays in the folder.
    """
    try:
        step = cuda_step.steps(cuda_step.compiler(arch), kind)[which]
    except jit_build.BuildError as error:
        pytest.skip(str(error))
    command = [
        *step.command,
        "-keep",
        "-keep-dir",
        folder,
        "-cubin",
        "-Xptxas=-v",
        "-Werror=all-warnings",
    ]
    done = subprocess.run(
        [*command, "-o", folder / "a.cubin", step.source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", done.stderr)
