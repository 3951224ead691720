"""Triton's launch path without a GPU: kernels are compiled for one, and nothing runs.

What is compiled is what a launch would run, with its alignments and special values of arguments;
tensors on the CPU do for those on the GPU. ``TRITON_INTERPRET`` must not be set.
"""

import contextlib
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import CompiledKernel
from triton.runtime import driver

from las_kernels.triton import configs

PROCESSORS = 132  # multiprocessors of an H100


class Launch(NamedTuple):
    """One kernel as it was launched."""

    kernel: Any  # as Triton compiled it
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]  # compile-time ones too

    @property
    def name(self) -> str:
        """Of the function."""
        return str(self.kernel.metadata.name)


class Usage(NamedTuple):
    """What a compiled kernel takes of a multiprocessor."""

    registers: int
    shared: int  # bytes
    spilled: int  # bytes of stack


class _Driver:
    """All that is asked of a driver before a launch."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_device(self) -> int:
        return self.architecture  # a number of its own, for what was compiled is kept by device

    def get_current_stream(self, device: int) -> int:  # noqa: ARG002
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)


def _give_handle(kernel: Any) -> None:
    kernel.function = id(kernel)  # what the driver would know it by


@contextlib.contextmanager
def stand_in(architecture: int = 90) -> Iterator[list[Launch]]:
    """Within, kernels are compiled for this architecture (90 is sm_90); the list gets launches."""
    launches: list[Launch] = []

    def run(kernel: Any) -> Any:
        # Grid, then six arguments of the launch itself.
        return lambda *given: launches.append(Launch(kernel, given[:3], given[9:]))

    replaced: dict[str, Any] = {
        "run": property(run),
        "launch_metadata": lambda *_: None,
        "_init_handles": _give_handle,
    }
    kept = {name: CompiledKernel.__dict__[name] for name in replaced}
    processors, active = configs.processors, driver._active
    driver.set_active(_Driver(architecture))
    configs.processors = lambda device: PROCESSORS  # type: ignore[assignment] # noqa: ARG005
    try:
        for name, value in replaced.items():
            setattr(CompiledKernel, name, value)
        yield launches
    finally:
        for name, value in kept.items():
            setattr(CompiledKernel, name, value)
        configs.processors = processors
        driver._active = active  # `reset_active` would look for a GPU


def usage_of(kernel: Any) -> Usage:
    """Registers, shared memory and spills of its machine code."""
    found = re.search(r"REG:(\d+) STACK:(\d+)", _printed(kernel, "-res-usage"))
    if found is None:
        raise RuntimeError(f"cuobjdump printed no usage of {kernel.metadata.name}")
    return Usage(int(found[1]), kernel.metadata.shared, int(found[2]))


def instructions_of(kernel: Any) -> Counter[str]:
    """How often each instruction stands in its machine code: ``MUFU.TANH``, ``LDG.E.128``, ..."""
    code = _printed(kernel, "-sass")
    return Counter(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z0-9_.]+)", code, re.M))


def _printed(kernel: Any, option: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(tool), option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
