"""Checks of arguments, made before anything is computed; every message names the argument."""

import os

import torch
from torch import Tensor

from las_kernels.types import Memory, Score


def autocasting(device: torch.device) -> bool:
    """Whether autocast is on for this kind of device; never for "meta", which computes nothing."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def check_memory(memory: Memory, score: Score, query_width: int | None = None) -> None:
    """Check keys, values, lengths and the score's parameters against each other.

    The values of ``lengths`` are read where they are on a CPU. On another device reading them
    would make the host wait, so there it is done only with ``LAS_KERNELS_CHECK=1`` set, and
    never while a graph is traced or captured.

    Raises:
        ValueError: a shape or a length is wrong.
        TypeError: a dtype (outside autocast) or device differs from that of ``keys``.
    """
    keys, values, lengths = memory
    if keys.dim() != 3:
        raise ValueError(f"keys must be [B, T, A], not {list(keys.shape)}")
    B, T, A = keys.shape
    if T == 0:
        raise ValueError("keys must have at least one frame")
    if values.dim() != 3 or values.shape[0] != B or values.shape[1] != T:
        raise ValueError(f"values must be [{B}, {T}, D] like keys, not {list(values.shape)}")
    _shape("lengths", lengths, (B,))
    if lengths.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"lengths must be int32 or int64, not {lengths.dtype}")
    if lengths.device != keys.device:
        raise TypeError(f"lengths is on {lengths.device}, keys on {keys.device}")
    _like("values", values, keys)
    if score.heads < 1 or A % score.heads or values.shape[2] % score.heads:
        raise ValueError(
            f"heads must divide the widths of keys ({A}) and values ({values.shape[2]}), "
            f"not be {score.heads}"
        )
    if query_width is not None and query_width != A:
        raise ValueError(f"query has width {query_width}, keys have {A}")
    _check_score(score, keys)
    _check_lengths(lengths, T)


def _check_score(score: Score, keys: Tensor) -> None:
    A = keys.shape[2]
    if (score.filters is None) != (score.projection is None):
        raise ValueError("filters and projection go together")
    if score.v is not None:
        _shape("v", score.v, (A,))
        _like("v", score.v, keys)
    elif score.filters is not None:
        raise ValueError("v is missing: filters and projection belong to an additive score")
    if score.filters is not None and score.projection is not None:
        if score.filters.dim() != 2 or score.filters.shape[1] % 2 == 0:
            raise ValueError(f"filters must be [C, W], W odd, not {list(score.filters.shape)}")
        _shape("projection", score.projection, (A, score.filters.shape[0]))
        _like("filters", score.filters, keys)
        _like("projection", score.projection, keys)


def _check_lengths(lengths: Tensor, frames: int) -> None:
    if torch.compiler.is_compiling():
        return
    if lengths.device.type != "cpu":
        checked = os.environ.get("LAS_KERNELS_CHECK") == "1"
        if not checked or torch.cuda.is_current_stream_capturing():
            return
    low, high = (int(x) for x in torch.aminmax(lengths)) if lengths.numel() else (1, 1)
    if low < 1 or high > frames:
        raise ValueError(f"lengths must be 1 to {frames}, the frames of keys; found {low}, {high}")


def check_query(query: Tensor, previous: Tensor | None, memory: Memory, score: Score) -> None:
    """Check one step's query and previous alignment; raises as :func:`check_memory`."""
    B, T = memory.keys.shape[:2]
    if query.dim() != 3 or query.shape[0] != B:
        raise ValueError(f"query must be [{B}, N, A], not {list(query.shape)}")
    _like("query", query, memory.keys)
    if score.filters is not None:
        if previous is None:
            raise ValueError("previous is missing: location-aware scores need it")
        _shape("previous", previous, (B, query.shape[1], score.heads, T))
        _like("previous", previous, memory.keys)


def check_sequence(projected: Tensor, weights: list[Tensor], memory: Memory) -> None:
    """Check the inputs and weights of a recurrence; raises as :func:`check_memory`."""
    B = memory.keys.shape[0]
    A, D = memory.keys.shape[2], memory.values.shape[2]
    layers = len(weights) // 3
    S = weights[2].shape[1]
    if projected.dim() != 3 or projected.shape[0] != B or projected.shape[1] == 0:
        raise ValueError(f"embedded must be [{B}, U, E], U >= 1, not {list(projected.shape)}")
    names = ["context_weight", "query_weight"]
    shapes: list[tuple[int, ...]] = [(4 * S, D), (A, S)]
    names += [f"recurrent_weights[{i}]" for i in range(layers)]
    shapes += [(4 * S, S)] * layers
    names += [f"input_weights[{i}]" for i in range(layers - 1)]
    shapes += [(4 * S, S)] * (layers - 1)
    names += [f"biases[{i}]" for i in range(1, layers)]
    shapes += [(4 * S,)] * (layers - 1)
    for name, shape, weight in zip(names, shapes, weights, strict=True):
        _shape(name, weight, shape)
        _like(name, weight, memory.keys)
    _shape("embedding_weight's product", projected, (B, projected.shape[1], 4 * S))
    _like("embedded", projected, memory.keys)


def check_masks(hidden: Tensor | None, context: Tensor | None, memory: Memory, layers: int) -> None:
    """Check dropout masks; raises as :func:`check_memory`."""
    B = memory.keys.shape[0]
    if hidden is not None:
        if hidden.dim() != 3 or hidden.shape[:2] != (B, layers):
            raise ValueError(f"masks.hidden must be [{B}, {layers}, S], not {list(hidden.shape)}")
        _like("masks.hidden", hidden, memory.keys)
    if context is not None:
        _shape("masks.context", context, (B, memory.values.shape[2]))
        _like("masks.context", context, memory.keys)


def _shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, not {list(tensor.shape)}")


def _like(name: str, tensor: Tensor, keys: Tensor) -> None:
    if tensor.dtype != keys.dtype and not autocasting(keys.device):
        raise TypeError(f"{name} is {tensor.dtype}, keys are {keys.dtype}")
    if tensor.device != keys.device:
        raise TypeError(f"{name} is on {tensor.device}, keys on {keys.device}")
