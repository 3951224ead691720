"""How the C++ functions for a CPU are loaded, and what they answer."""

import ctypes
from collections.abc import Mapping, Sequence

from torch import Tensor

from las_kernels import jit_build


def load(
    source: str,
    sizes: Mapping[str, int],
    functions: Sequence[str],
    name: str | None = None,
    flags: Sequence[str] = (),
) -> ctypes.CDLL:
    """The library of ``csrc/<source>.cpp``, built if need be.

    Args:
        source: without ``.cpp``.
        sizes: as of :func:`las_kernels.jit_build.load`.
        functions: that are given a packed struct and return a status, see :func:`check`.
        name: of the library; by default that of the source.
        flags: more of them for the compiler.

    Raises:
        BuildError: it cannot be built or loaded.
    """
    step = jit_build.cpu_step(jit_build.CPU_SOURCES / f"{source}.cpp")
    step = step._replace(command=[*step.command, *flags])
    library = jit_build.load(f"cpu_{name or source}", [step], jit_build.torch_link(), sizes)
    for function in functions:
        found = getattr(library, function)
        found.argtypes = [ctypes.c_char_p]
        found.restype = ctypes.c_int64
    return library


def check(status: int, lengths: Tensor, frames: int, what: str, least: int = 1) -> None:
    """What a function has returned: 0, the number of an utterance whose length is wrong, or less.

    Raises:
        ValueError: a length is not in ``least`` to ``frames``.
        RuntimeError: memory is short.
    """
    if status > 0:
        length = int(lengths[status - 1])
        raise ValueError(f"lengths[{status - 1}] is {length}, not in {least}..{frames}")
    if status < 0:
        raise RuntimeError(f"not enough memory for {what}")
