# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""The LSTM cell, forward and backward (Triton): one launch between two matrix products."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from las_kernels.triton.configs import LSTM_BLOCK
from las_kernels.triton.steps import Launch, Operand
from las_kernels.triton.utils import Launcher, narrow, sigmoid, tanh


@triton.jit
def lstm_cell_fwd_kernel(
    gates,
    before,
    after,
    hidden,
    mask,
    output,
    S,
    gates_b,
    before_b,
    after_b,
    hidden_b,
    mask_b,
    output_b,
    HAS_BEFORE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BS: tl.constexpr,
):
    """A tile of units of one row."""
    b = tl.program_id(0).to(tl.int64)
    s = tl.program_id(1) * BS + tl.arange(0, BS)
    known = s < S
    gates += b * gates_b
    kind: tl.constexpr = gates.dtype.element_ty
    i = sigmoid(tl.load(gates + s, mask=known, other=0.0).to(tl.float32))
    f = sigmoid(tl.load(gates + S + s, mask=known, other=0.0).to(tl.float32))
    g = tanh(tl.load(gates + 2 * S + s, mask=known, other=0.0).to(tl.float32), False)
    o = sigmoid(tl.load(gates + 3 * S + s, mask=known, other=0.0).to(tl.float32))
    c = i * g
    if HAS_BEFORE:
        c += f * tl.load(before + b * before_b + s, mask=known, other=0.0)
    tl.store(gates + s, narrow(i, kind), mask=known)
    tl.store(gates + S + s, narrow(f, kind), mask=known)
    tl.store(gates + 2 * S + s, narrow(g, kind), mask=known)
    tl.store(gates + 3 * S + s, narrow(o, kind), mask=known)
    tl.store(after + b * after_b + s, c, mask=known)
    h = narrow(o * tanh(c, False), kind)
    tl.store(hidden + b * hidden_b + s, h, mask=known)
    if HAS_MASK:
        kept = tl.load(mask + b * mask_b + s, mask=known, other=0.0).to(tl.float32)
        tl.store(output + b * output_b + s, narrow(h.to(tl.float32) * kept, kind), mask=known)


@triton.jit
def lstm_cell_bwd_kernel(
    dhidden,
    dcell,
    gates,
    before,
    after,
    dgates,
    dbefore,
    above,
    mask,
    S,
    dhidden_b,
    gates_b,
    before_b,
    after_b,
    dgates_b,
    above_b,
    mask_b,
    HAS_DCELL: tl.constexpr,
    HAS_BEFORE: tl.constexpr,
    HAS_ABOVE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BS: tl.constexpr,
):
    """A tile of units of one row."""
    b = tl.program_id(0).to(tl.int64)
    s = tl.program_id(1) * BS + tl.arange(0, BS)
    known = s < S
    gates += b * gates_b
    dgates += b * dgates_b
    kind: tl.constexpr = dgates.dtype.element_ty
    i = tl.load(gates + s, mask=known, other=0.0).to(tl.float32)
    f = tl.load(gates + S + s, mask=known, other=0.0).to(tl.float32)
    g = tl.load(gates + 2 * S + s, mask=known, other=0.0).to(tl.float32)
    o = tl.load(gates + 3 * S + s, mask=known, other=0.0).to(tl.float32)
    y = tanh(tl.load(after + b * after_b + s, mask=known, other=0.0), False)
    dh = tl.load(dhidden + b * dhidden_b + s, mask=known, other=0.0).to(tl.float32)
    if HAS_ABOVE:
        more = tl.load(above + b * above_b + s, mask=known, other=0.0).to(tl.float32)
        if HAS_MASK:
            more *= tl.load(mask + b * mask_b + s, mask=known, other=0.0).to(tl.float32)
        dh += more
    dc = dh * o * (1.0 - y * y)
    if HAS_DCELL:
        dc += tl.load(dcell + b * S + s, mask=known, other=0.0)
    df = tl.zeros((BS,), tl.float32)
    if HAS_BEFORE:
        df = dc * tl.load(before + b * before_b + s, mask=known, other=0.0) * f * (1.0 - f)
    tl.store(dgates + s, narrow(dc * g * i * (1.0 - i), kind), mask=known)
    tl.store(dgates + S + s, narrow(df, kind), mask=known)
    tl.store(dgates + 2 * S + s, narrow(dc * i * (1.0 - g * g), kind), mask=known)
    tl.store(dgates + 3 * S + s, narrow(dh * y * o * (1.0 - o), kind), mask=known)
    tl.store(dbefore + b * S + s, dc * f, mask=known)


def forward_launch(
    gates: Operand,
    before: Operand | None,
    cell: Operand,
    hidden: Operand,
    mask: Tensor | None = None,
    output: Operand | None = None,
) -> Launch:
    """As :func:`forward`; with ``mask``, hidden times mask goes into ``output``."""
    B, S = cell.shape
    rows = (
        gates,
        cell if before is None else before,
        cell,
        hidden,
        hidden if mask is None else mask,
        hidden if output is None else output,
    )
    config = {"HAS_BEFORE": before is not None, "HAS_MASK": mask is not None, "BS": LSTM_BLOCK}
    grid = (B, triton.cdiv(S, LSTM_BLOCK))
    launcher = Launcher(lstm_cell_fwd_kernel, grid, config, range(len(rows)))
    return Launch(launcher, *rows, S, *(x.stride(0) for x in rows))


def backward_launch(
    dhidden: Operand,
    dcell: Tensor | None,
    gates: Operand,
    before: Operand | None,
    cell: Operand,
    dgates: Operand,
    dbefore: Tensor,
    above: Tensor | None = None,
    mask: Tensor | None = None,
) -> Launch:
    """As :func:`backward`; ``dbefore``, which may be ``dcell``, is written.

    ``above``, times ``mask``, is added to ``dhidden``.
    """
    B, S = cell.shape
    earlier = cell if before is None else before
    more = dhidden if above is None else above
    kept = dhidden if mask is None else mask
    later = dbefore if dcell is None else dcell
    given = {"DCELL": dcell, "BEFORE": before, "ABOVE": above, "MASK": mask}
    config = {**{f"HAS_{name}": x is not None for name, x in given.items()}, "BS": LSTM_BLOCK}
    rows = (dhidden, later, gates, earlier, cell, dgates, dbefore, more, kept)
    strided = (dhidden, gates, earlier, cell, dgates, more, kept)
    grid = (B, triton.cdiv(S, LSTM_BLOCK))
    launcher = Launcher(lstm_cell_bwd_kernel, grid, config, range(len(rows)))
    return Launch(launcher, *rows, S, *(x.stride(0) for x in strided))


def forward(gates: Tensor, before: Tensor | None, cell: Tensor, hidden: Tensor) -> None:
    """As :func:`las_kernels.eager.lstm_cell`."""
    with torch.cuda.device_of(cell):
        forward_launch(gates, before, cell, hidden)()


def backward(
    dhidden: Tensor,
    dcell: Tensor | None,
    gates: Tensor,
    before: Tensor | None,
    cell: Tensor,
    dgates: Tensor,
) -> Tensor:
    """As :func:`las_kernels.eager.lstm_cell_backward`."""
    if dhidden.stride(1) != 1:
        dhidden = dhidden.contiguous()
    dbefore = torch.empty_like(cell, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(cell):
        backward_launch(dhidden, dcell, gates, before, cell, dgates, dbefore)()
    return dbefore
