# ruff: noqa: ANN001, ANN202, ARG001 (fakes have the signatures of what they stand for)
"""A bidirectional LSTM layer over a ragged batch: the operator ``las_kernels::bilstm``.

On a CPU C++ computes it; where that cannot be, and on a GPU, whose cuDNN is hard to beat, it is
``torch.lstm``. The backward is an operator of its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from las_kernels import lstm_eager
from las_kernels.backends import REFERENCE, choose, same_when_compiled
from las_kernels.cpu import lstm as cpu_lstm
from las_kernels.cpu import lstm_amx
from las_kernels.lstm_eager import SavedActivations, reversal
from las_kernels.reference import padding_mask
from las_kernels.validation import autocasting

# Of the backends of :mod:`las_kernels.backends` those with ops for this layer, and "amx",
# which is "cpp" under autocast; with the others the layer is torch's.
BACKEND_OPS = {"threephase": lstm_eager.OPS, "cpp": cpu_lstm.OPS, "amx": lstm_amx.OPS}

_NAMES = [
    f"{name}_l0{suffix}"
    for suffix in ("", "_reverse")
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
]


def bilstm(
    x: Tensor, lengths: Tensor, weights: Sequence[Tensor], *, backend: str = "auto"
) -> Tensor:
    """Run the layer; the backward direction starts at each utterance's own last frame.

    In C++ no bit of an utterance's output depends on its batch, padding or the number of threads.
    Under autocast to bfloat16 C++ multiplies rounded numbers where the processor has AMX.
    Elsewhere it computes in float32 all the same and rounds the output: there are no fast products
    of bfloat16, and ``torch.lstm`` fails on some of these processors.

    Args:
        x: [B, T, I]. ``torch.lstm`` reads padding too, but only after the valid frames.
        lengths: valid frames [B], each 0..T.
        weights: eight, in the order and shapes of ``torch.nn.LSTM`` with ``bidirectional``:
            weight_ih_l0 [4S, I], weight_hh_l0 [4S, S], bias_ih_l0 [4S], bias_hh_l0 [4S] (gates in
            the order i, f, g, o), and the same four with the suffix _reverse.
        backend: as of :func:`las_kernels.decode_sequence`; those that have no ops here take
            ``torch.lstm``.

    Returns:
        [B, T, 2S], the forward direction first, zero on padding; under autocast of its dtype.

    Raises:
        ValueError: a shape is wrong, or a length is not in 0..T (on a GPU lengths are not read).
        TypeError: a dtype (outside autocast) or device differs from that of the first weight.
        RuntimeError: the backend asked for cannot run; says why.
    """
    weights = list(weights)
    _check(x, lengths, weights)
    first = weights[0]
    name = _choose(backend, first.device, first.dtype)
    if name not in BACKEND_OPS:
        return _torch(x, lengths, weights)
    x = x.to(first.dtype)
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *weights))
    if not wanted and not torch.compiler.is_compiling():
        out = BACKEND_OPS[name].forward(x, lengths, weights).out  # without the cost of an operator
    else:
        out = bilstm_operator(x, lengths, weights, name)[0]
    kind = x.device.type
    return out.to(torch.get_autocast_dtype(kind)) if autocasting(x.device) else out


@same_when_compiled  # it asks the process and the device, not the tensors
def _choose(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    name = choose(backend, device, dtype)
    if name != "cpp":
        return name
    if (reason := cpu_lstm.available()) is not None:
        if backend == name:
            raise RuntimeError(f"backend={name!r} cannot run: {reason}")
        return REFERENCE
    if autocasting(device) and torch.get_autocast_dtype(device.type) == torch.bfloat16:
        return "amx" if lstm_amx.available() is None else name
    return name


def _torch(x: Tensor, lengths: Tensor, weights: list[Tensor]) -> Tensor:
    """By ``torch.lstm``, the frames of the backward direction reversed by a gather.

    A packed sequence instead takes three times as long on a CPU.
    """
    if x.device.type == "cpu" and autocasting(x.device) and not bfloat16_on_cpu():
        with torch.autocast("cpu", enabled=False):
            out = _torch(x.to(weights[0].dtype), lengths, weights)
        return out.to(torch.get_autocast_dtype("cpu"))
    B, T, _ = x.shape
    mask = padding_mask(lengths, T)
    order = reversal(lengths, T)[:, :, None]
    training = torch.is_grad_enabled()  # cuDNN keeps what a backward needs only in training
    state = x.new_zeros(1, B, weights[1].shape[1])
    ahead = torch.lstm(x, (state, state), weights[:4], True, 1, 0.0, training, False, True)[0]
    back = x.gather(1, order.expand_as(x))
    back = torch.lstm(back, (state, state), weights[4:], True, 1, 0.0, training, False, True)[0]
    back = back.gather(1, order.expand_as(back))
    return torch.cat([ahead, back], -1) * mask[:, :, None].to(ahead.dtype)


def bfloat16_on_cpu() -> bool:
    """Whether ``torch.lstm`` can compute in bfloat16 here: oneDNN's form needs AVX-512."""
    if not torch.backends.mkldnn.is_available():
        return True  # torch's own form
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _check(x: Tensor, lengths: Tensor, weights: list[Tensor]) -> None:
    if x.dim() != 3:
        raise ValueError(f"x must be [B, T, I], not {list(x.shape)}")
    B, T, features = x.shape
    if len(weights) != 8:
        raise ValueError(f"weights must be eight tensors, not {len(weights)}")
    if weights[1].dim() != 2:
        raise ValueError(f"weight_hh_l0 must be [4S, S], not {list(weights[1].shape)}")
    S = weights[1].shape[1]
    shapes = [(4 * S, features), (4 * S, S), (4 * S,), (4 * S,)] * 2
    for name, weight, shape in zip(_NAMES, weights, shapes, strict=True):
        if tuple(weight.shape) != shape:
            raise ValueError(f"{name} must have shape {list(shape)}, not {list(weight.shape)}")
        _like(name, weight, weights[0])
    if not autocasting(x.device):
        _like("x", x, weights[0])
    if tuple(lengths.shape) != (B,):
        raise ValueError(f"lengths must have shape [{B}], not {list(lengths.shape)}")
    if lengths.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"lengths must be int32 or int64, not {lengths.dtype}")
    if lengths.device != x.device:
        raise TypeError(f"lengths is on {lengths.device}, x on {x.device}")
    if lengths.device.type == "cpu" and lengths.numel() and not torch.compiler.is_compiling():
        low, high = (int(n) for n in torch.aminmax(lengths))
        if low < 0 or high > T:
            raise ValueError(f"lengths must be 0 to {T}, the frames of x; found {low}, {high}")


def _like(name: str, tensor: Tensor, first: Tensor) -> None:
    if tensor.dtype != first.dtype:
        raise TypeError(f"{name} is {tensor.dtype}, {_NAMES[0]} is {first.dtype}")
    if tensor.device != first.device:
        raise TypeError(f"{name} is on {tensor.device}, {_NAMES[0]} on {first.device}")


@torch.library.custom_op("las_kernels::bilstm", mutates_args=())
def bilstm_operator(
    x: Tensor, lengths: Tensor, weights: list[Tensor], backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """:class:`lstm_plain.SavedActivations`, of which gates and cells have no gradient."""
    with torch.autocast(x.device.type, enabled=False):
        kept: SavedActivations = BACKEND_OPS[backend].forward(x, lengths, weights)
    return kept.out, kept.gates, kept.cells


@bilstm_operator.register_fake
def _fake(x, lengths, weights, backend):  # type: ignore[no-untyped-def]
    return tuple(lstm_eager.empty(x, weights[1].shape[1]))


@torch.library.custom_op("las_kernels::bilstm_backward", mutates_args=())
def bilstm_backward(
    dout: Tensor,
    x: Tensor,
    lengths: Tensor,
    weights: list[Tensor],
    kept: list[Tensor],
    wanted: bool,
    backend: str,
) -> list[Tensor]:
    """Gradients of each of weights, then of x where it is wanted."""
    with torch.autocast(x.device.type, enabled=False):
        found = BACKEND_OPS[backend].backward(
            dout, x, lengths, weights, SavedActivations(*kept), wanted
        )
    return found.weights if found.x is None else [*found.weights, found.x]


@bilstm_backward.register_fake
def _backward_fake(dout, x, lengths, weights, kept, wanted, backend):  # type: ignore[no-untyped-def]
    return [tensor.new_empty(tensor.shape) for tensor in [*weights, *([x] if wanted else [])]]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, lengths, weights, ctx.backend = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, lengths, *output, *weights)


def _autograd(ctx: Any, dout: Tensor | None, *_: Tensor | None) -> Any:
    x, lengths, *rest = ctx.saved_tensors
    kept, weights = list(rest[:3]), list(rest[3:])
    if dout is None:
        return None, None, [None] * len(weights), None
    wanted = ctx.needs_input_grad[0]
    found = bilstm_backward(dout, x, lengths, weights, kept, wanted, ctx.backend)
    return found[8] if wanted else None, None, found[:8], None


bilstm_operator.register_autograd(_autograd, setup_context=_setup)
