"""The steps of a sequence in a loop in C++: ``csrc/steps.cpp``, built on demand.

A plan becomes a list of numbers and the tensors that torch's operators read and write. Compiled
kernels are launched by the driver's ``cuLaunchKernel``, as Triton's own launcher does it where a
kernel needs nothing special. What a kernel takes is compared with its PTX, in case another version
of Triton passes something else.
"""

import ctypes
import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import knobs
from triton.runtime import JITFunction, driver

from las_kernels import jit_build
from las_kernels.triton.steps import VARIABLE, Launch, Plan, Steps, TorchCall
from las_kernels.triton.utils import Launcher

SOURCE = Path(__file__).parent / "csrc" / "steps.cpp"
KINDS = ("launch", "mm", "addmm", "add", "addcmul")  # in the order of `Kind` in the source
BITS = {"i32": 32, "u32": 32, "i64": 64, "u64": 64}  # of arguments that are not pointers
SCRATCH = (0, 0)  # pointers after the last argument: memory that none of our kernels needs
# What makes Triton's launcher do more than launch, if it is not zero.
SPECIAL = ("global_scratch_size", "launch_cooperative_grid", "launch_pdl", "profile_scratch_size")
WARP = 32
ALIGNMENT = 16


class CannotRunError(Exception):
    """Why a plan cannot be run by C++, in one line."""


class Binary(NamedTuple):
    """A kernel on the GPU, as its driver launches it."""

    function: int
    threads: int
    shared: int  # bytes
    passed: tuple[int, ...]  # which of its arguments; the others have been compiled in
    aligned: frozenset[int]  # those that are said to be multiples of ALIGNMENT


def run(plan: Plan) -> str | None:
    """Run all steps on the current stream, or say why that cannot be.

    Raises:
        RuntimeError: the driver refuses a launch.
    """
    try:
        code, tensors = program(plan)
        launch = launch_function()
    except CannotRunError as reason:
        return str(reason)
    if (missing := available()) is not None:
        return missing
    # The driver has a context on this thread: torch has filled the buffers of the sequence on it.
    stream = driver.active.get_current_stream(driver.active.get_current_device())
    status, at = torch.ops.las_kernels_steps.run(tensors, code, launch, stream)
    if status != 0:
        names = {
            operations[at].launcher.kernel.__name__
            for _, operations in plan
            if at < len(operations) and isinstance(operations[at], Launch)
        }
        raise RuntimeError(
            f"cuLaunchKernel of {' or '.join(sorted(names))} failed with CUDA error {status}; "
            f"with {VARIABLE}=python Triton launches the kernels itself"
        )
    return None


def program(plan: Plan) -> tuple[list[int], list[Tensor]]:
    """What the C++ reads: each part's number of steps, its operations, and each one's numbers.

    Raises:
        CannotRunError: only Python can do it.
    """
    hooks = (knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook)
    if any(getattr(hook, "calls", hook) for hook in hooks):
        raise CannotRunError("Triton has hooks of launches, which a profiler may have set")
    code: list[int] = []
    tensors: list[Tensor] = []
    for steps, operations in plan:
        code += [len(steps), len(operations)]
        for operation in operations:
            if isinstance(operation, Launch):
                code.append(KINDS.index("launch"))
                code += _launch(operation, steps)
            elif isinstance(operation, TorchCall):
                code.append(KINDS.index(operation.name))
                for x in operation.operands:
                    part, moved = (x.first, x.moved(steps)) if isinstance(x, Steps) else (x, (0, 0))
                    tensors.append(part)
                    code += [int(part.storage_offset()) + moved[0], moved[1]]
            else:
                raise CannotRunError("a step calls a function of Python")
    return code, tensors


def _launch(operation: Launch, steps: range) -> list[int]:
    """Function, grid, threads and shared memory; the arguments; which of them move, and by what."""
    launcher = operation.launcher
    parts = [x.first if isinstance(x, Steps) else x for x in operation.arguments]
    binary = binary_of(launcher, parts)
    values = [x if isinstance(x, int) else x.data_ptr() for x in parts]
    moves: list[int] = []
    for i, x in operation.moving:
        size = x.x.element_size()
        ahead, move = x.moved(steps)
        if i in binary.aligned and move * size % ALIGNMENT != 0:
            raise CannotRunError("a kernel is compiled for an alignment that only some steps have")
        values[i] += ahead * size
        moves += [binary.passed.index(i), move * size]
    passed = [*(values[i] for i in binary.passed), *SCRATCH]
    launch = [binary.function, *launcher.grid, binary.threads, binary.shared]
    return [*launch, len(passed), *passed, len(moves) // 2, *moves]


def binary_of(launcher: Launcher, arguments: list[Any]) -> Binary:
    """The kernel for such arguments, compiled and loaded.

    Raises:
        CannotRunError: it runs in the interpreter, or its launch is not a plain one.
    """
    if not isinstance(launcher.kernel, JITFunction):
        raise CannotRunError("the kernels run in Triton's interpreter")
    return _binary(launcher.compile(*arguments))


@functools.cache
def _binary(compiled: Any) -> Binary:
    compiled[1, 1, 1]  # loads it
    metadata, kinds = compiled.metadata, list(compiled.src.signature.values())
    if metadata.num_ctas != 1 or any(getattr(metadata, name, 0) for name in SPECIAL):
        raise CannotRunError(f"{metadata.name} needs Triton's own launcher")
    passed = tuple(i for i, kind in enumerate(kinds) if kind != "constexpr")
    bits = [64 if kinds[i][0] == "*" else BITS.get(kinds[i], 0) for i in passed]
    entry = re.search(r"\.entry\s+\w+\((.*?)\)", compiled.asm["ptx"], re.DOTALL)
    taken = re.findall(r"\.param\s+\.[a-z](\d+)", entry[1]) if entry else []
    if list(map(int, taken)) != [*bits, *(64 for _ in SCRATCH)]:
        raise CannotRunError(f"{metadata.name} takes other arguments than in Triton 3.6")
    aligned = frozenset(path[0] for path, found in compiled.src.attrs.items() if found)
    return Binary(compiled.function, WARP * metadata.num_warps, metadata.shared, passed, aligned)


@functools.cache
def launch_function() -> int:
    """Address of the driver's ``cuLaunchKernel``.

    Raises:
        CannotRunError: the driver cannot be found.
    """
    try:
        found = ctypes.CDLL("libcuda.so.1").cuLaunchKernel
    except OSError as error:
        raise CannotRunError(str(error)) from error
    return ctypes.cast(found, ctypes.c_void_p).value or 0


def _load() -> ctypes.CDLL:
    return jit_build.load("triton_steps", [jit_build.cpu_step(SOURCE)], jit_build.torch_link())


_LIBRARY = jit_build.Library(
    "the loop over steps in C++", _load, "the steps of a sequence are launched from Python"
)
available = _LIBRARY.available
