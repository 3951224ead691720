"""Which code computes attention: a table of backends, and the choice among them.

To add a backend, add a row to ``BACKENDS``. A backend is an :class:`~las_kernels.plain.Engine`
(one that only speeds up a single step replaces ``forward`` in another engine) and a function
that says why it cannot run.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import torch

from las_kernels import plain

VARIABLE = "LAS_KERNELS_BACKEND"
REFERENCE = "reference"


class Backend(NamedTuple):
    """A way to compute attention and the recurrence."""

    why_not: Callable[[torch.device, torch.dtype], str | None]  # None: it can run
    engine: Callable[[], plain.Engine]  # imports what it needs when called


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


def _triton() -> plain.Engine:
    from las_kernels.attention import ENGINE

    return ENGINE


BACKENDS = {
    # Plain autograd: no operator, no engine of its own; the fastest on a CPU.
    REFERENCE: Backend(_always, lambda: plain.ENGINE),
    # The three-phase form in plain PyTorch: keeps little memory, exact in float64.
    "threephase": Backend(_always, lambda: plain.ENGINE),
    "triton": Backend(_why_not_triton, _triton),
}


def why_not(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the backend of this name cannot run there, or None."""
    if name not in BACKENDS:
        return f"the backends are {', '.join(['auto', *BACKENDS])}"
    return BACKENDS[name].why_not(device, dtype)


@torch.compiler.assume_constant_result  # it asks the process and the device, not the tensors
def choose(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend to use.

    Args:
        name: "auto" takes the one in the environment variable ``LAS_KERNELS_BACKEND`` if set,
            else Triton on a CUDA device where it can run, else the reference.
        device: where the tensors are.
        dtype: of the tensors.

    Raises:
        RuntimeError: the backend asked for cannot run; says why.
    """
    source = f"backend={name!r}"
    if name == "auto":
        name = os.environ.get(VARIABLE) or "auto"
        source = f"{VARIABLE}={name}"
    if name == "auto":
        usable = device.type == "cuda" and why_not("triton", device, dtype) is None
        return "triton" if usable else REFERENCE
    reason = why_not(name, device, dtype)
    if reason is not None:
        raise RuntimeError(f"{source} cannot run: {reason}")
    return name
