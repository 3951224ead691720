"""The public functions: those of ``reference`` with a choice of backend."""

from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from las_kernels import reference, torch_library
from las_kernels.backends import REFERENCE, choose
from las_kernels.cpu import attention_step as cpu_step
from las_kernels.reference import padding_mask
from las_kernels.sequence import recurrent_parameters
from las_kernels.types import Decoder, Masks, Memory, Score, State
from las_kernels.validation import (
    autocasting,
    check_masks,
    check_memory,
    check_query,
    check_sequence,
)

Tensors = TypeVar("Tensors", bound=tuple[Any, ...])


def attend(
    query: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None = None,
    *,
    need_alignment: bool = True,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """One step of attention; see :func:`las_kernels.reference.attend`.

    Args:
        query: [B, N, A].
        memory: keys [B, T, A], values [B, T, D], lengths [B].
        score: the score function; ``heads`` must divide A and D.
        previous: the alignment of the step before [B, N, H, T]; location-aware scores need it.
        need_alignment: without it the alignment is None, and dot scores go through
            ``torch.nn.functional.scaled_dot_product_attention``.
        backend: a name in ``las_kernels.backends.BACKENDS``, or "auto"; see
            ``las_kernels.backends.AUTO``.

    Returns:
        context [B, N, D] and alignment [B, N, H, T].

    Raises:
        ValueError: a shape is wrong, or a length is not in 1..T (lengths on a GPU are only read
            with ``LAS_KERNELS_CHECK=1``: reading them makes the host wait).
        TypeError: dtypes or devices differ.
        RuntimeError: the backend cannot run; says why.
    """
    wanted = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (query, *memory[:2], previous, *score[:3])
    )
    name = choose(backend, query.device, query.dtype, "sequence" if wanted else "step")
    if name != REFERENCE:
        query, previous = _autocast((query, previous), query.device)
        memory = _autocast(memory, query.device)
        score = _autocast(score, query.device)
    check_memory(memory, score, query.shape[-1])
    check_query(query, previous, memory, score)
    if not need_alignment:
        if score.v is None:
            return _scaled_dot_product(query, memory, score), None
        return attend(query, memory, score, previous, backend=name)[0], None
    if name == REFERENCE:
        return reference.attend(query, memory, score, previous)
    previous = previous if score.filters is not None else None
    if not wanted and not torch.compiler.is_compiling():
        # Calling an operator takes longer than a small step, and than launching a kernel.
        if name == "cpp":
            return cpu_step.attend(query, memory, score, previous)
        return torch_library.attend_directly(query, memory, score, previous, name)
    return torch_library.attend(query, *memory, previous, *score, name)


def _scaled_dot_product(query: Tensor, memory: Memory, score: Score) -> Tensor:
    B, N, A = query.shape
    T, H = memory.keys.shape[1], score.heads
    context = F.scaled_dot_product_attention(
        query.view(B, N, H, A // H).transpose(1, 2),
        memory.keys.view(B, T, H, A // H).transpose(1, 2),
        memory.values.view(B, T, H, -1).transpose(1, 2),
        attn_mask=padding_mask(memory.lengths, T)[:, None, None, :],
        scale=score.scale,
    )
    return context.transpose(1, 2).reshape(B, N, -1)


def decode_step(
    projected: Tensor,
    state: State,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, State]:
    """One step of the decoder; see :func:`las_kernels.reference.decode_step`."""
    attention: Any = partial(attend, backend=backend)
    return reference.decode_step(projected, state, memory, decoder, score, masks, attention)


def decode_sequence(
    embedded: Tensor,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """The whole teacher-forced recurrence; see :func:`las_kernels.reference.decode_sequence`.

    Other backends than the reference run it as one operator whose backward keeps nothing of
    size B*T*A. Under autocast they compute in its dtype.

    Args:
        embedded: embeddings of the inputs of every step, [B, U, E].
        memory: what is attended to.
        decoder: recurrent weights.
        score: the score function.
        masks: dropout masks, in training; they get no gradient.
        backend: a name in ``las_kernels.backends.BACKENDS``, or "auto".

    Returns:
        outputs of the last layer [B, U, S], contexts [B, U, D], alignments [B, U, H, T].

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`attend`.
    """
    masks = masks or Masks()
    device = memory.keys.device
    name = choose(backend, device, memory.keys.dtype)
    if name != REFERENCE:
        memory = _autocast(memory, device)
        score = _autocast(score, device)
        masks = _autocast(masks, device)
    check_memory(memory, score)
    check_masks(*masks, memory, len(decoder.recurrent_weights))
    if name == REFERENCE:
        return reference.decode_sequence(embedded, memory, decoder, score, masks)
    projected, *weights = _autocast(
        (
            F.linear(embedded, decoder.embedding_weight, decoder.biases[0]),
            *recurrent_parameters(decoder),
        ),
        device,
    )
    check_sequence(projected, weights, memory)
    hidden, contexts, alignments, *_ = torch_library.decode_sequence(
        projected, *memory, weights, *score[:3], *masks, score.heads, score.scale, name
    )
    outputs = hidden[:, :, -1]
    if masks.hidden is not None:
        outputs = outputs * masks.hidden[:, None, -1]
    return outputs, contexts, alignments


def _autocast(tensors: Tensors, device: torch.device) -> Tensors:
    """Cast the floating-point members to autocast's dtype, where it is on."""
    if not autocasting(device):
        return tensors
    dtype = torch.get_autocast_dtype(device.type)
    cast = [x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in tensors]
    make: Any = getattr(tensors, "_make", tuple)
    found: Tensors = make(cast)
    return found
