# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""The LSTM cell, forward and backward (Triton): one launch between two matrix products."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from las_kernels.triton.configs import LSTM_BLOCK
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


class ForwardSteps:
    """The cells of the steps of a sequence: tensors of the same strides and types each time."""

    def __init__(self) -> None:
        self.launchers: dict[tuple[bool, bool], Launcher] = {}

    def __call__(
        self,
        gates: Tensor,
        before: Tensor | None,
        cell: Tensor,
        hidden: Tensor,
        mask: Tensor | None = None,
        output: Tensor | None = None,
    ) -> None:
        """As :func:`forward`; with ``mask``, hidden times mask goes into ``output``."""
        B, S = cell.shape
        earlier = cell if before is None else before
        kept = hidden if mask is None else mask
        masked = hidden if output is None else output
        rows = (gates, earlier, cell, hidden, kept, masked)
        flags = (before is not None, mask is not None)
        if flags not in self.launchers:
            config = {"HAS_BEFORE": flags[0], "HAS_MASK": flags[1], "BS": LSTM_BLOCK}
            grid = (B, triton.cdiv(S, LSTM_BLOCK))
            self.launchers[flags] = Launcher(lstm_cell_fwd_kernel, grid, config, range(6))
        with torch.cuda.device_of(cell):
            self.launchers[flags](*rows, S, *(x.stride(0) for x in rows))


class BackwardSteps:
    """The gradients of the cells, as :class:`ForwardSteps`."""

    def __init__(self) -> None:
        self.launchers: dict[tuple[bool, ...], Launcher] = {}

    def __call__(
        self,
        dhidden: Tensor,
        dcell: Tensor | None,
        gates: Tensor,
        before: Tensor | None,
        cell: Tensor,
        dgates: Tensor,
        above: Tensor | None = None,
        mask: Tensor | None = None,
        dbefore: Tensor | None = None,
    ) -> Tensor:
        """As :func:`backward`.

        ``above``, times ``mask``, is added to ``dhidden``. ``dbefore``, which may be ``dcell``, is
        written and returned.
        """
        B, S = cell.shape
        if dhidden.stride(1) != 1:
            dhidden = dhidden.contiguous()
        earlier = cell if before is None else before
        if dbefore is None:
            dbefore = torch.empty(B, S, dtype=cell.dtype, device=cell.device)
        later = dbefore if dcell is None else dcell
        more = dhidden if above is None else above
        kept = dhidden if mask is None else mask
        flags = tuple(x is not None for x in (dcell, before, above, mask))
        if flags not in self.launchers:
            has = ("HAS_DCELL", "HAS_BEFORE", "HAS_ABOVE", "HAS_MASK")
            config = {**dict(zip(has, flags, strict=True)), "BS": LSTM_BLOCK}
            grid = (B, triton.cdiv(S, LSTM_BLOCK))
            self.launchers[flags] = Launcher(lstm_cell_bwd_kernel, grid, config, range(9))
        strides = (x.stride(0) for x in (dhidden, gates, earlier, cell, dgates, more, kept))
        with torch.cuda.device_of(cell):
            self.launchers[flags](
                *(dhidden, later, gates, earlier, cell, dgates, dbefore, more, kept), S, *strides
            )
        return dbefore


def forward(gates: Tensor, before: Tensor | None, cell: Tensor, hidden: Tensor) -> None:
    """As :func:`las_kernels.eager.lstm_cell`."""
    ForwardSteps()(gates, before, cell, hidden)


def backward(
    dhidden: Tensor,
    dcell: Tensor | None,
    gates: Tensor,
    before: Tensor | None,
    cell: Tensor,
    dgates: Tensor,
) -> Tensor:
    """As :func:`las_kernels.eager.lstm_cell_backward`."""
    return BackwardSteps()(dhidden, dcell, gates, before, cell, dgates)
