"""Fused attention, forward (Triton): scores, softmax and context in one pass over the memory.

Split-KV, as flash-decoding: ``attention_fwd_split_kernel`` gives each program one split of the
frames of one utterance and one head, for up to eight queries that share the memory; it keeps a
running maximum, so that any finite score is safe. The program that arrives last joins the splits,
or ``attention_fwd_combine_kernel`` does where there are many, in a fixed order: the same bits each
time, whatever the order of arrival. Nothing makes the host wait, so that a step can be captured in
a CUDA graph.
"""

import functools

import torch
import triton
from torch import Tensor

from las_kernels import eager
from las_kernels.triton import configs
from las_kernels.triton.attention_fwd_kernels import (
    attention_fwd_combine_kernel,
    attention_fwd_split_kernel,
)
from las_kernels.triton.steps import Launch, Operand, Operation, PythonCall
from las_kernels.triton.utils import Launcher, positions, strides
from las_kernels.types import Memory, Score

# What differs from step to step.
_SPLIT = positions(attention_fwd_split_kernel, "query", "previous", "context", "alignment", "fed")
_COMBINE = positions(attention_fwd_combine_kernel, "context", "alignment", "fed")


class ForwardSteps:
    """Attention of the steps of a sequence, each one launch or two, planned once.

    Steps come one after another: they share scratch memory.

    Args:
        memory: what is attended to.
        score: the score function.
        N: queries of a step.
        mask: [B, D], of contexts of one query; a step then writes the masked context too.
        alone: whether it is one step, not many.
    """

    def __init__(
        self,
        memory: Memory,
        score: Score,
        N: int,  # noqa: N803
        mask: Tensor | None = None,
        alone: bool = False,
    ) -> None:
        self.memory, self.score, self.mask = memory, score, mask
        if score.v is None:
            return
        B, T, A = memory.keys.shape
        D, H = memory.values.shape[2], score.heads
        dtype, device = memory.keys.dtype, memory.keys.device
        config = configs.attention_fwd_split_config(N, H, (A // H, D // H), score.location, dtype)
        config = configs.choose(attention_fwd_split_kernel, config, dtype, device)
        fill = config.pop("fill")
        programs = B * H * triton.cdiv(N, config["NB"])
        num_splits, split_len = configs.splits_for(
            T, programs, configs.processors(device), fill, config["BT"]
        )
        columns = triton.cdiv(D // H, config["BD"])
        # Zeroing a counter would take a single step as long as a second launch.
        joined = not alone and N == 1 and num_splits <= configs.JOINED_SPLITS
        config["HAS_MASK"] = mask is not None
        config["JOIN"] = configs.JOINED_SPLITS if joined else 0
        self.joined, self.num_splits = joined, num_splits
        grid = (programs, num_splits, columns)
        self.split = Launcher(attention_fwd_split_kernel, grid, config, _SPLIT)
        self.sizes = (T, N, split_len)
        scratch = functools.partial(torch.empty, dtype=torch.float32, device=device)
        parts = (B, H, num_splits, N)
        self.energy, self.split_max, self.split_sum = (
            scratch(B, N, H, T),
            scratch(*parts),
            scratch(*parts),
        )
        self.split_context = scratch(*parts, D // H)
        self.arrivals = self.split_max
        if joined:
            self.arrivals = torch.zeros(programs, dtype=torch.int32, device=device)
            return
        config = configs.attention_fwd_combine_config(H, D // H)
        config = configs.choose(attention_fwd_combine_kernel, config, dtype, device)
        config["HAS_MASK"] = mask is not None
        grid = (B * N * H, triton.cdiv(D // H, config["BD"]), 1)
        self.combine = Launcher(attention_fwd_combine_kernel, grid, config, _COMBINE)

    def operations(
        self,
        query: Operand,
        previous: Operand | None,
        context: Operand,
        alignment: Operand,
        fed: Operand | None = None,
    ) -> list[Operation]:
        """What a step does; as :func:`las_kernels.eager.forward`.

        ``fed``, [B, 1, D], gets the context times the mask.
        """
        memory, score = self.memory, self.score
        if score.v is None:  # dot scores are matrix products and stay there
            return [PythonCall(self._dot, query, previous, context, alignment, fed)]
        before = query if previous is None else previous
        mask = context if self.mask is None else self.mask
        masked = context if fed is None else fed
        parts = (self.energy, self.split_max, self.split_sum, self.split_context)
        split = Launch(
            self.split,
            query,
            *memory,
            score.v,
            before,
            query if score.filters is None else score.filters,
            query if score.projection is None else score.projection,
            *parts,
            self.arrivals,
            context,
            alignment,
            mask,
            masked,
            *self.sizes,
            *strides(query, before),
            context.stride(0),
            alignment.stride(0),
            mask.stride(0),
            masked.stride(0),
        )
        if self.joined:
            return [split]
        combine = Launch(
            self.combine,
            memory.lengths,
            *parts,
            context,
            alignment,
            mask,
            masked,
            *self.sizes[:2],
            self.num_splits,
            *strides(context, alignment),
            mask.stride(0),
            masked.stride(0),
        )
        return [split, combine]

    def _dot(
        self,
        query: Tensor,
        previous: Tensor | None,
        context: Tensor,
        alignment: Tensor,
        fed: Tensor | None,
    ) -> None:
        eager.forward(query, self.memory, self.score, previous, context, alignment)
        if fed is not None and self.mask is not None:
            torch.mul(context, self.mask[:, None], out=fed)

    def __call__(
        self, query: Tensor, previous: Tensor | None, context: Tensor, alignment: Tensor
    ) -> None:
        """One step; as :func:`las_kernels.eager.forward`."""
        with torch.cuda.device_of(query):
            for operation in self.operations(query, previous, context, alignment):
                operation()


def forward(
    query: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None,
    context: Tensor,
    alignment: Tensor,
) -> None:
    """As :func:`las_kernels.eager.forward`."""
    N = query.shape[1]
    ForwardSteps(memory, score, N, alone=True)(query, previous, context, alignment)
