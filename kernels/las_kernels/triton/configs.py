"""Launch choices that were measured: which tile sizes and warps a kernel gets on which GPU.

The plans of the kernels are safe defaults, chosen so that nothing spills; they are not tuned.
Where ``python -m benchmarks.kernels.tuning`` has measured something quicker, it is a line of
``tuned/sm_<capability>.json`` and replaces them, for those sizes alone.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "tuned"
SIZES = ("H", "AH", "DH", "NB", "C", "W")  # compile-time arguments that make another problem
_trial: dict[str, dict[str, Any]] = {}


def key(kernel: str, plan: dict[str, Any], dtype: torch.dtype) -> str:
    """How a kernel's sizes are called in the files: ``partial float32 H1 AH512 DH1024 NB1``."""
    located = plan.get("LOCATION", False)
    sizes = [f"{k}{plan[k]}" for k in SIZES if k in plan and (located or k not in ("C", "W"))]
    return " ".join([kernel, str(dtype).removeprefix("torch."), *sizes])


@functools.cache
def choices(capability: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """What is shipped for GPUs of a compute capability, by :func:`key`."""
    path = FOLDER / f"sm_{capability[0]}{capability[1]}.json"
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8"))["choices"]
    return found


def choose(
    kernel: str, plan: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """The plan with what was measured on such a GPU in place of the defaults."""
    if kernel in _trial:
        return {**plan, **_trial[kernel]}
    if device.type != "cuda":
        return plan
    measured = choices(_capability(device.index))
    return {**plan, **measured[name]} if (name := key(kernel, plan, dtype)) in measured else plan


@functools.cache
def _capability(index: int | None) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


@contextlib.contextmanager
def trying(**kernels: dict[str, Any]) -> Iterator[None]:
    """These choices whatever was measured, to measure or to test them."""
    _trial.update(kernels)
    try:
        yield
    finally:
        for kernel in kernels:
            del _trial[kernel]
