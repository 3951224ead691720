"""The steps of a sequence as data, and the loops that run them.

A step is a list of operations, written down once: launches of kernels and operators of torch, whose
operands are tensors that all steps share or :class:`Steps`. A loop in Python runs it anywhere; on a
GPU the same list goes to a loop in C++ (:mod:`las_kernels.triton.cpp_steps`), which does the same
without coming back to Python, for the host would take longer than the GPU.
"""

import copy
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from las_kernels.triton.utils import Launcher

VARIABLE = "LAS_KERNELS_LOOP"
LOOPS = ("auto", "cpp", "python")


class Steps:
    """A tensor [B, U, ...] of whose U parts each step uses its own.

    Args:
        x: the tensor.
        keeps_dim: whether a part is [B, 1, ...] rather than [B, ...].
    """

    def __init__(self, x: Tensor, keeps_dim: bool = False) -> None:
        self.x, self.keeps_dim, self.lag = x, keeps_dim, 0
        self.parts: list[Tensor] = []  # of the loop in Python alone: making them takes time

    @functools.cached_property
    def first(self) -> Tensor:
        """The part of the first step, for what all have in common."""
        return self.x.narrow(1, 0, 1) if self.keeps_dim else self.x.select(1, 0)

    @property
    def shape(self) -> torch.Size:
        """Of a part."""
        return self.first.shape

    def before(self) -> "Steps":
        """The same, of which each step uses the part of the step before."""
        found = copy.copy(self)
        found.lag = self.lag - 1
        return found

    def at(self, u: int) -> Tensor:
        """What step ``u`` uses."""
        if not self.parts:
            self.parts += self.x.split(1, 1) if self.keeps_dim else self.x.unbind(1)
        return self.parts[u + self.lag]

    def moved(self, steps: range) -> tuple[int, int]:
        """How many elements from :attr:`first` the first step's part is, and the next from it."""
        stride = self.x.stride(1)
        return (steps[0] + self.lag) * stride, steps.step * stride

    def stride(self, dim: int | None = None) -> Any:
        """Of a part."""
        return self.first.stride() if dim is None else self.first.stride(dim)


Operand = Tensor | Steps


class Launch:
    """A launch of a kernel in each step.

    Args:
        launcher: of the kernel.
        arguments: all but the compile-time ones.
    """

    def __init__(self, launcher: Launcher, *arguments: Operand | int) -> None:
        self.launcher, self.arguments = launcher, arguments
        self.moving = [(i, x) for i, x in enumerate(arguments) if isinstance(x, Steps)]

    def __call__(self, u: int = 0) -> None:
        """Of step ``u``."""
        arguments = list(self.arguments)
        for i, x in self.moving:
            arguments[i] = x.at(u)
        self.launcher(*arguments)


class TorchCall:
    """An operator of torch in each step.

    Args:
        name: one of ``FUNCTIONS``.
        out: written, or added to.
        left: the first operand.
        right: the second.
    """

    FUNCTIONS: ClassVar[dict[str, Callable[[Tensor, Tensor, Tensor], Any]]] = {
        "mm": lambda out, x, y: torch.mm(x, y, out=out),
        "addmm": lambda out, x, y: out.addmm_(x, y),
        "add": lambda out, x, y: torch.add(x, y, out=out),
        "addcmul": lambda out, x, y: out.addcmul_(x, y),
    }

    def __init__(self, name: str, out: Operand, left: Operand, right: Operand) -> None:
        self.name, self.operands = name, (out, left, right)

    def __call__(self, u: int = 0) -> None:
        """Of step ``u``."""
        self.FUNCTIONS[self.name](*(_at(x, u) for x in self.operands))


class PythonCall:
    """A function of Python in each step; a sequence that has one cannot be run by C++.

    Args:
        function: its result is not used.
        arguments: what it is called with.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Operand | None) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self, u: int = 0) -> None:
        """Of step ``u``."""
        self.function(*(_at(x, u) for x in self.arguments))


Operation = Launch | TorchCall | PythonCall
# Which steps, in which order, and what each of them does.
Plan = Sequence[tuple[range, Sequence[Operation]]]


def _at(x: Any, u: int) -> Any:
    return x.at(u) if isinstance(x, Steps) else x


def run(plan: Plan, device: torch.device) -> None:
    """All steps, on the current device: that of the tensors, ``device``.

    ``LAS_KERNELS_LOOP`` chooses who loops: "python"; "cpp"; or "auto", C++ where it can.

    Raises:
        ValueError: the variable has another value.
        RuntimeError: "cpp" is asked for and cannot run, or a launch fails.
    """
    loop = os.environ.get(VARIABLE) or "auto"
    if loop not in LOOPS:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(LOOPS)}, not {loop}")
    if loop == "cpp" or (loop == "auto" and device.type == "cuda"):
        from las_kernels.triton import cpp_steps

        reason = cpp_steps.run(plan)
        if reason is None:
            return
        if loop == "cpp":
            raise RuntimeError(f"{VARIABLE}=cpp cannot run: {reason}")
    for steps, operations in plan:
        for u in steps:
            for operation in operations:
                operation(u)
