# ruff: noqa: ANN001, ANN202, ARG001 (fakes have the signatures of what they stand for)
"""The torch operators ``las_kernels::attend`` and ``las_kernels::decode_sequence``.

One operator a sequence: the cost of a call is paid once, and ``torch.compile`` and
``torch.export`` see one node. A backward is an operator of its own. Gradients come as a list
without the inputs that are None.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from las_kernels import eager, sequence
from las_kernels.backends import BACKENDS, PERSISTENT
from las_kernels.cuda import persistent_decoder
from las_kernels.types import Masks, Memory, Score
from las_kernels.validation import autocasting


def _plain_types(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """No autocast inside an operator: its inputs already have the types to compute in."""
    if not autocasting(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


@torch.library.custom_op("las_kernels::attend", mutates_args=())
def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    previous: Tensor | None,
    v: Tensor | None,
    filters: Tensor | None,
    projection: Tensor | None,
    heads: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """``reference.attend`` with its arguments spelt out."""
    return attend_directly(
        query,
        Memory(keys, values, lengths),
        Score(v, filters, projection, heads, scale),
        previous,
        backend,
    )


def attend_directly(
    query: Tensor, memory: Memory, score: Score, previous: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    """What the operator computes, without a gradient and unseen by the compiler."""
    B, N, _ = query.shape
    T, D = memory.values.shape[1:]
    context, alignment = query.new_empty(B, N, D), query.new_empty(B, N, score.heads, T)
    with _plain_types(query.device):
        BACKENDS[backend].ops().forward(
            query.contiguous(),
            _memory(*memory),
            _score(*score),
            _solid(previous),
            context,
            alignment,
        )
    return context, alignment


@attend.register_fake
def _attend_fake(  # type: ignore[no-untyped-def]
    query, keys, values, lengths, previous, v, filters, projection, heads, scale, backend
):
    B, N, _ = query.shape
    return (
        query.new_empty(B, N, values.shape[2]),
        query.new_empty(B, N, heads, keys.shape[1]),
    )


@torch.library.custom_op("las_kernels::attend_backward", mutates_args=())
def attend_backward(
    dcontext: Tensor | None,
    dalignment: Tensor | None,
    alignment: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    previous: Tensor | None,
    v: Tensor | None,
    filters: Tensor | None,
    projection: Tensor | None,
    heads: int,
    scale: float,
    backend: str,
) -> list[Tensor]:
    """Gradients of query, keys, values, previous, v, filters, projection."""
    memory = _memory(keys, values, lengths)
    score = _score(v, filters, projection, heads, scale)
    with _plain_types(query.device):
        if dcontext is None:
            dcontext = values.new_zeros(*query.shape[:2], values.shape[2])
        dcontext = dcontext.contiguous()
        ops = BACKENDS[backend].ops()
        solid = (query.contiguous(), memory, score, alignment, _solid(previous))
        attention = sequence.AttentionBackward(ops, *solid, at_once=max(1, query.shape[1]))
        dprevious = attention.phase1(0, dcontext, _solid(dalignment))
        if dprevious is not None:  # kept wide by the ops, for the step before
            dprevious = dprevious.to(alignment.dtype)
        found = attention.phase2()
        dvalues = sequence.gradient_of_values(alignment, dcontext)
    found_list = [attention.dqueries, found.keys, dvalues, dprevious, *found[1:]]
    return [x.contiguous() for x in found_list if x is not None]


@attend_backward.register_fake
def _attend_backward_fake(  # type: ignore[no-untyped-def]
    dcontext, dalignment, alignment, query, keys, values, lengths, previous, v, filters,
    projection, heads, scale, backend,
):  # fmt: skip
    located = previous if filters is not None else None
    inputs = [query, keys, values, located, v, filters, projection]
    return [x.new_empty(x.shape) for x in inputs if x is not None]


def _attend_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], *inputs[:8])
    ctx.rest = inputs[8:]


def _attend_autograd(ctx: Any, dcontext: Tensor | None, dalignment: Tensor | None) -> Any:
    saved = ctx.saved_tensors
    gradients = iter(attend_backward(dcontext, dalignment, *saved, *ctx.rest))
    previous, v, filters, projection = saved[5:]
    located = previous if filters is not None else None
    query, keys, values = (next(gradients) for _ in range(3))
    others = [None if x is None else next(gradients) for x in (located, v, filters, projection)]
    return query, keys, values, None, *others, None, None, None


attend.register_autograd(_attend_autograd, setup_context=_attend_setup)


@torch.library.custom_op("las_kernels::decode_sequence", mutates_args=())
def decode_sequence(
    projected: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    weights: list[Tensor],
    v: Tensor | None,
    filters: Tensor | None,
    projection: Tensor | None,
    mask_hidden: Tensor | None,
    mask_context: Tensor | None,
    heads: int,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The recurrence; returns :class:`sequence.SavedActivations`.

    Of these, cells and gates have no gradient. ``weights`` are those of
    :func:`sequence.recurrent_parameters`.
    """
    memory = _memory(keys, values, lengths)
    decoder = sequence.from_parameters(weights)
    forward: Callable[..., sequence.SavedActivations]
    forward = partial(sequence.forward, BACKENDS[backend].ops())
    if backend == PERSISTENT and len(decoder.recurrent_weights) == 1 and projected.numel() > 0:
        forward = persistent_decoder.forward
    with _plain_types(keys.device):
        kept = forward(
            projected,
            memory,
            decoder,
            _score(v, filters, projection, heads, scale),
            Masks(mask_hidden, mask_context),
        )
    return kept.hidden, kept.contexts, kept.alignments, kept.cells, kept.gates


@decode_sequence.register_fake
def _decode_fake(  # type: ignore[no-untyped-def]
    projected, keys, values, lengths, weights, v, filters, projection, mask_hidden, mask_context,
    heads, scale, backend,
):  # fmt: skip
    B, U, _ = projected.shape
    L, S = len(weights) // 3, weights[2].shape[1]
    new = projected.new_empty
    return (
        new(B, U, L, S),
        new(B, U, values.shape[2]),
        new(B, U, heads, keys.shape[1]),
        new(B, U, L, S, dtype=eager.accumulator(projected.dtype)),
        new(B, U, L, 4 * S),
    )


@torch.library.custom_op("las_kernels::decode_sequence_backward", mutates_args=())
def decode_sequence_backward(
    dhidden: Tensor | None,
    dcontexts: Tensor | None,
    dalignments: Tensor | None,
    kept: list[Tensor],
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    weights: list[Tensor],
    v: Tensor | None,
    filters: Tensor | None,
    projection: Tensor | None,
    mask_hidden: Tensor | None,
    mask_context: Tensor | None,
    heads: int,
    scale: float,
    backend: str,
) -> list[Tensor]:
    """Gradients of projected, keys, values, each of weights, v, filters, projection."""
    with _plain_types(keys.device):
        found = sequence.backward(
            BACKENDS[backend].ops(),
            dhidden,
            _solid(dcontexts),
            _solid(dalignments),
            sequence.SavedActivations(*kept),
            _memory(keys, values, lengths),
            sequence.from_parameters(weights),
            _score(v, filters, projection, heads, scale),
            Masks(mask_hidden, mask_context),
        )
    gradients = [found.projected, found.keys, found.values, *found.weights]
    gradients += [x for x in (found.v, found.filters, found.projection) if x is not None]
    return [x.contiguous() for x in gradients]


@decode_sequence_backward.register_fake
def _decode_backward_fake(  # type: ignore[no-untyped-def]
    dhidden, dcontexts, dalignments, kept, keys, values, lengths, weights, v, filters, projection,
    mask_hidden, mask_context, heads, scale, backend,
):  # fmt: skip
    B, U, _, S = kept[0].shape
    inputs = [keys, values, *weights, *(x for x in (v, filters, projection) if x is not None)]
    return [keys.new_empty(B, U, 4 * S), *(x.new_empty(x.shape) for x in inputs)]


def _decode_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, keys, values, lengths, weights, *rest = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[3:])
    ctx.layers = len(weights) // 3
    ctx.save_for_backward(*output, keys, values, lengths, *rest[:5], *weights)
    ctx.rest = rest[5:]


def _decode_autograd(ctx: Any, *gradients: Tensor | None) -> Any:
    saved = list(ctx.saved_tensors)
    kept, memory, optional, weights = saved[:5], saved[5:8], saved[8:13], saved[13:]
    found = iter(
        decode_sequence_backward(*gradients[:3], kept, *memory, weights, *optional, *ctx.rest)
    )
    projected, keys, values = (next(found) for _ in range(3))
    of_weights = [next(found) for _ in weights]
    of_score = [None if x is None else next(found) for x in optional[:3]]
    return projected, keys, values, None, of_weights, *of_score, None, None, None, None, None


decode_sequence.register_autograd(_decode_autograd, setup_context=_decode_setup)


def _memory(keys: Tensor, values: Tensor, lengths: Tensor) -> Memory:
    """Kernels read it row by row, and the lengths one after another."""
    return Memory(keys.contiguous(), values.contiguous(), lengths.contiguous())


def _score(
    v: Tensor | None, filters: Tensor | None, projection: Tensor | None, heads: int, scale: float
) -> Score:
    return Score(_solid(v), _solid(filters), _solid(projection), heads, scale)


def _solid(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()
