# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""The LSTM cell, forward and backward (Triton): one launch between two matrix products."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from las_kernels.triton.configs import LSTM_BLOCK
from las_kernels.triton.utils import narrow, sigmoid, tanh


@triton.jit
def lstm_cell_fwd_kernel(
    gates,
    before,
    after,
    hidden,
    S,
    gates_b,
    before_b,
    after_b,
    hidden_b,
    HAS_BEFORE: tl.constexpr,
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
    tl.store(hidden + b * hidden_b + s, narrow(o * tanh(c, False), kind), mask=known)


@triton.jit
def lstm_cell_bwd_kernel(
    dhidden,
    dcell,
    gates,
    before,
    after,
    dgates,
    dbefore,
    S,
    dhidden_b,
    gates_b,
    before_b,
    after_b,
    dgates_b,
    HAS_DCELL: tl.constexpr,
    HAS_BEFORE: tl.constexpr,
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


def forward(gates: Tensor, before: Tensor | None, cell: Tensor, hidden: Tensor) -> None:
    """As :func:`las_kernels.eager.lstm_cell`."""
    B, S = cell.shape
    earlier = cell if before is None else before
    with torch.cuda.device_of(cell):
        lstm_cell_fwd_kernel[(B, triton.cdiv(S, LSTM_BLOCK))](
            gates,
            earlier,
            cell,
            hidden,
            S,
            gates.stride(0),
            earlier.stride(0),
            cell.stride(0),
            hidden.stride(0),
            HAS_BEFORE=before is not None,
            BS=LSTM_BLOCK,
        )


def backward(
    dhidden: Tensor,
    dcell: Tensor | None,
    gates: Tensor,
    before: Tensor | None,
    cell: Tensor,
    dgates: Tensor,
) -> Tensor:
    """As :func:`las_kernels.eager.lstm_cell_backward`."""
    B, S = cell.shape
    dhidden = dhidden.contiguous()
    earlier = cell if before is None else before
    dbefore = torch.empty(B, S, dtype=cell.dtype, device=cell.device)
    with torch.cuda.device_of(cell):
        lstm_cell_bwd_kernel[(B, triton.cdiv(S, LSTM_BLOCK))](
            dhidden,
            dbefore if dcell is None else dcell,
            gates,
            earlier,
            cell,
            dgates,
            dbefore,
            S,
            dhidden.stride(0),
            gates.stride(0),
            earlier.stride(0),
            cell.stride(0),
            dgates.stride(0),
            HAS_DCELL=dcell is not None,
            HAS_BEFORE=before is not None,
            BS=LSTM_BLOCK,
        )
    return dbefore
