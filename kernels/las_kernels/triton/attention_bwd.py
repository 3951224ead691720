"""Fused attention, phase 1 of the backward (Triton): what the step before needs.

One launch a step, ``attention_bwd_dq_kernel``, whose last program joins the others' sums; with
location features, or many tiles of frames, ``attention_bwd_dq_reduce_kernel`` joins them. Sums over
programs are made in a fixed order: the same bits each time, whatever the order of arrival.
"""

import functools

import torch
import triton
from torch import Tensor

from las_kernels import eager
from las_kernels.triton import configs
from las_kernels.triton.attention_bwd_kernels import (
    attention_bwd_dq_kernel,
    attention_bwd_dq_reduce_kernel,
)
from las_kernels.triton.steps import Launch, Operand, Operation, PythonCall
from las_kernels.triton.utils import Launcher, positions, strides
from las_kernels.types import Memory, Score

# What differs from step to step.
_DQ = positions(
    attention_bwd_dq_kernel,
    *("dcontext", "dalignment", "alignment", "query", "features", "denergy", "dquery"),
)
_REDUCE = positions(
    attention_bwd_dq_reduce_kernel, "alignment", "denergy", "dquery", "dfeatures", "dprevious"
)


class BackwardSteps:
    """Phase 1 of the steps of a sequence, each one launch or two, planned once.

    Steps come one after another: they share scratch memory.

    Args:
        memory: what was attended to.
        score: the score function.
        N: queries of a step.
    """

    def __init__(self, memory: Memory, score: Score, N: int) -> None:  # noqa: N803
        self.memory, self.score = memory, score
        if score.v is None:
            return
        B, T, A = memory.keys.shape
        D, H, location = memory.values.shape[2], score.heads, score.location
        dtype, device = memory.keys.dtype, memory.keys.device
        config = configs.attention_bwd_dq_config(H, (A // H, D // H), location, dtype)
        config = configs.choose(attention_bwd_dq_kernel, config, dtype, device)
        rows, tiles = B * N * H, triton.cdiv(T, config["BT"])
        # The transposed convolution is work for more than one program.
        self.joined = location is None and tiles <= configs.JOINED_TILES
        config["JOIN"] = self.joined
        self.sizes, self.tiles = (T, N), tiles
        self.dq = [
            Launcher(
                attention_bwd_dq_kernel,
                (rows, tiles),
                {**config, "HAS_DALIGNMENT": external},
                _DQ,
            )
            for external in (False, True)
        ]
        scratch = functools.partial(torch.empty, dtype=torch.float32, device=device)
        self.gradient, self.sums = scratch(rows, T), scratch(rows, tiles, 2)
        self.slopes = scratch(rows, tiles, 2, A // H)
        self.located_slopes = scratch(rows, 0 if location is None else location[0], T)
        self.arrivals = self.sums
        if self.joined:
            self.arrivals = torch.zeros(rows, dtype=torch.int32, device=device)
            return
        config = configs.attention_bwd_dq_reduce_config(H, A // H, location)
        config = configs.choose(attention_bwd_dq_reduce_kernel, config, dtype, device)
        grid = (rows, triton.cdiv(T, config["BT"]))
        self.reduce = Launcher(attention_bwd_dq_reduce_kernel, grid, config, _REDUCE)

    def operations(
        self,
        dcontext: Operand,
        dalignment: Operand | None,
        alignment: Operand,
        query: Operand,
        features: Operand | None,
        denergy: Operand,
        dquery: Operand,
        dfeatures: Operand | None,
        dprevious: Operand | None = None,
    ) -> list[Operation]:
        """What a step does; as :func:`las_kernels.eager.backward`.

        ``dprevious``, [B, N, H, T], gets the gradient of the alignment before, for location-aware
        scores.
        """
        memory, score = self.memory, self.score
        if score.v is None:  # dot scores are matrix products and stay there
            return [PythonCall(self._dot, dcontext, dalignment, alignment, query, denergy, dquery)]
        external = alignment if dalignment is None else dalignment
        located = query if features is None else features
        found = (self.gradient, self.sums, self.slopes, self.located_slopes)
        dq = Launch(
            self.dq[dalignment is not None],
            dcontext,
            external,
            alignment,
            query,
            *memory,
            score.v,
            query if score.projection is None else score.projection,
            located,
            *found,
            self.arrivals,
            denergy,
            dquery,
            *self.sizes,
            *strides(dcontext, external, alignment, query, located, denergy, dquery),
        )
        if self.joined:
            return [dq]
        dlocated = query if dfeatures is None else dfeatures
        reduce = Launch(
            self.reduce,
            alignment,
            memory.lengths,
            score.v,
            query if score.filters is None else score.filters,
            *found,
            denergy,
            dquery,
            dlocated,
            dquery if dprevious is None else dprevious,
            *self.sizes,
            self.tiles,
            *strides(alignment, denergy, dquery, dlocated),
        )
        return [dq, reduce]

    def _dot(
        self,
        dcontext: Tensor,
        dalignment: Tensor | None,
        alignment: Tensor,
        query: Tensor,
        denergy: Tensor,
        dquery: Tensor,
    ) -> None:
        given = (dcontext, dalignment, alignment, query, self.memory, self.score)
        eager.backward(*given, None, denergy, dquery, None)

    def __call__(
        self,
        dcontext: Tensor,
        dalignment: Tensor | None,
        alignment: Tensor,
        query: Tensor,
        features: Tensor | None,
        denergy: Tensor,
        dquery: Tensor,
        dfeatures: Tensor | None,
    ) -> Tensor | None:
        """One step; as :func:`las_kernels.eager.backward`."""
        given = (dcontext, dalignment, alignment, query, features, denergy, dquery, dfeatures)
        dprevious = None
        if dfeatures is not None:
            dprevious = torch.empty(alignment.shape, dtype=torch.float32, device=query.device)
        with torch.cuda.device_of(query):
            for operation in self.operations(*given, dprevious):
                operation()
        return dprevious


def backward(
    dcontext: Tensor,
    dalignment: Tensor | None,
    alignment: Tensor,
    query: Tensor,
    memory: Memory,
    score: Score,
    features: Tensor | None,
    denergy: Tensor,
    dquery: Tensor,
    dfeatures: Tensor | None,
) -> Tensor | None:
    """As :func:`las_kernels.eager.backward`."""
    step = BackwardSteps(memory, score, query.shape[1])
    return step(dcontext, dalignment, alignment, query, features, denergy, dquery, dfeatures)
