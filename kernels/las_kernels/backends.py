"""Which code computes attention: a table of backends, and the choice among them.

To add a backend, add a row to ``BACKENDS``. A backend is an :class:`~las_kernels.eager.OpTable`
(one that only speeds up a single step replaces ``forward`` in another table) and a function
that says why it cannot run.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch

from las_kernels import eager

VARIABLE = "LAS_KERNELS_BACKEND"
REFERENCE = "reference"
PERSISTENT = "persistent"

Function = TypeVar("Function", bound=Callable[..., Any])


class Backend(NamedTuple):
    """A way to compute attention and the recurrence."""

    why_not: Callable[[torch.device, torch.dtype], str | None]  # None: it can run
    ops: Callable[[], eager.OpTable]  # imports what it needs when called


def _always(device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG001
    return None


def _why_not_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    try:
        from triton import knobs
    except ImportError:
        return "the package triton is not installed"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it computes float32, bfloat16 and float16, not {dtype}"
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "it needs a GPU of compute capability 8.0 or newer"
        return None
    if device.type == "cpu" and knobs.runtime.interpret:
        return None
    return (
        f"it needs a CUDA device, not {device.type} (TRITON_INTERPRET=1 runs it on a CPU, slowly)"
    )


@functools.cache
def _triton() -> eager.OpTable:
    from las_kernels.triton import sequence

    return sequence.OPS._replace(sequence=sequence)


def _why_not_cpp(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return f"it needs a CPU, not {device.type}"
    if dtype != torch.float32:
        return f"it computes float32, not {dtype}"
    from las_kernels.cpu import attention_step as cpu_step
    from las_kernels.cpu import training as cpu_training

    return cpu_step.available() or cpu_training.available()


def _cpp() -> eager.OpTable:
    from las_kernels.cpu import attention_step as cpu_step
    from las_kernels.cpu import sequence as cpu_sequence
    from las_kernels.cpu import training as cpu_training

    return eager.OPS._replace(
        forward=cpu_step.forward,
        backward=cpu_training.backward,
        backward_dkv=cpu_training.backward_dkv,
        lstm_cell=cpu_training.lstm_cell,
        lstm_cell_backward=cpu_training.lstm_cell_backward,
        sequence=cpu_sequence,
    )


def _why_not_cuda(device: torch.device, dtype: torch.dtype) -> str | None:
    from las_kernels.cuda import attention_step as cuda_step

    if device.type != "cuda":
        return f"it needs a CUDA device, not {device.type}"
    if dtype not in cuda_step.TYPES:
        return f"it computes float32, bfloat16 and float16, not {dtype}"
    return cuda_step.available()


def _cuda() -> eager.OpTable:
    from las_kernels.cuda import attention_step as cuda_step

    return _triton()._replace(forward=cuda_step.forward, forward_steps=None)


def _why_not_persistent(device: torch.device, dtype: torch.dtype) -> str | None:
    from las_kernels.cuda import persistent_decoder

    return _why_not_cuda(device, dtype) or persistent_decoder.available()


BACKENDS = {
    # Plain autograd: no operator, no ops of its own; the definition of right.
    REFERENCE: Backend(_always, lambda: eager.OPS),
    # The three-phase form in plain PyTorch: keeps little memory, exact in float64.
    "threephase": Backend(_always, lambda: eager.OPS),
    "triton": Backend(_why_not_triton, _triton),
    # C++ for a step and for the sequential parts of the three-phase form.
    "cpp": Backend(_why_not_cpp, _cpp),
    # A step in CUDA C++; whole sequences and whatever has a gradient are as in triton.
    "cuda": Backend(_why_not_cuda, _cuda),
    # The same, and a sequence of a decoder with one LSTM layer in one launch.
    PERSISTENT: Backend(_why_not_persistent, _cuda),
}

# What "auto" takes where it can run, the first that can: for steps of search, and where a
# gradient is wanted or a whole sequence is computed.
AUTO: dict[str, dict[str, tuple[str, ...]]] = {
    "step": {"cuda": ("cuda", "triton"), "cpu": ("cpp",)},
    "sequence": {"cuda": ("triton",), "cpu": ("cpp",)},
}


def same_when_compiled(function: Function) -> Function:
    """``torch.compiler.assume_constant_result`` without what that imports.

    It marks a function for ``torch.compile``, and loads all of the compiler for it, which takes
    nearly as long as torch itself.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def why_not(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the backend of this name cannot run there, or None."""
    if name not in BACKENDS:
        return f"the backends are {', '.join(['auto', *BACKENDS])}"
    return BACKENDS[name].why_not(device, dtype)


@same_when_compiled  # it asks the process and the device, not the tensors
def choose(name: str, device: torch.device, dtype: torch.dtype, work: str = "sequence") -> str:
    """The backend to use.

    Args:
        name: "auto" takes the one in the environment variable ``LAS_KERNELS_BACKEND`` if set,
            else the first of ``AUTO`` that can run, else the reference.
        device: where the tensors are.
        dtype: of the tensors.
        work: "step" for a step without gradient, else "sequence".

    Raises:
        RuntimeError: the backend asked for cannot run; says why.
    """
    source = f"backend={name!r}"
    if name == "auto":
        name = os.environ.get(VARIABLE) or "auto"
        source = f"{VARIABLE}={name}"
    if name == "auto":
        names = AUTO[work].get(device.type, ())
        return next((n for n in names if why_not(n, device, dtype) is None), REFERENCE)
    reason = why_not(name, device, dtype)
    if reason is not None:
        raise RuntimeError(f"{source} cannot run: {reason}")
    return name
