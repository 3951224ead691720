"""A bidirectional LSTM layer in bfloat16 on a CPU with Intel's AMX: ``csrc/gemm_amx.h``.

Factors of the products are rounded to bfloat16; sums, gates, cells and what goes in and comes out
are float32. The promises are those of :mod:`las_kernels.cpu.lstm`.
"""

import ctypes
import re

from torch import Tensor

from las_kernels import jit_build
from las_kernels.cpu import lstm as cpu_lstm
from las_kernels.lstm_eager import Gradients, OpTable, SavedActivations


def forward(x: Tensor, lengths: Tensor, weights: list[Tensor]) -> SavedActivations:
    """As :func:`las_kernels.cpu.lstm.forward`."""
    return cpu_lstm.forward_with(_LIBRARY(), x, lengths, weights)


def backward(
    dout: Tensor,
    x: Tensor,
    lengths: Tensor,
    weights: list[Tensor],
    saved: SavedActivations,
    wanted: bool,
) -> Gradients:
    """As :func:`las_kernels.cpu.lstm.backward`."""
    return cpu_lstm.backward_with(_LIBRARY(), dout, x, lengths, weights, saved, wanted)


OPS = OpTable(forward, backward)


def load(emulated: bool = False) -> ctypes.CDLL:
    """The library; ``emulated`` has C++ in the place of the processor's instructions, for tests.

    Raises:
        BuildError: it does not build.
    """
    if emulated:
        return cpu_lstm.load("lstm_emulated", ["-DLAS_TILES", "-DLAS_EMULATED_TILES"])
    return cpu_lstm.load("lstm_amx", ["-DLAS_TILES", "-mamx-tile", "-mamx-bf16"])


def _load() -> ctypes.CDLL | str:
    missing = {"amx_tile", "amx_bf16"} - set(re.findall(r"\w+", jit_build._processor()))
    if missing:
        return f"the processor has no {' and no '.join(sorted(missing))}"
    library = load()
    library.las_lstm_allow.restype = ctypes.c_int64
    if library.las_lstm_allow() != 0:
        return "the system does not let a process use AMX"
    return library


_LIBRARY = jit_build.Library(
    "the CPU kernels", _load, "the LSTM layers compute in float32 on this CPU"
)
available = _LIBRARY.available
