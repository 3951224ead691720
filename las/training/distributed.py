"""Data-parallel training: what the processes that train one model have to agree on.

Whatever decides what a process does next (when to save, when to stop, the learning rate) must be
the same in all of them. Otherwise one waits in a collective operation that the others never enter.
"""

import contextlib
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class DistributedGroup:
    """The processes of a training; only this one if torch.distributed was not initialised.

    Args:
        device: on which this process computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1

    @property
    def first(self) -> bool:
        """Whether this process (rank 0) is the one that writes files and evaluates."""
        return self.rank == 0

    def replica(self, model: nn.Module, whole: bool) -> nn.Module:
        """The model wrapped for data-parallel training; the model itself in a single process.

        Args:
            model: to train; an earlier replica of it must have been deleted.
            whole: whether every parameter gets a gradient in every step. If not, the unused ones
                are searched for in each step, which takes time.
        """
        if self.world == 1:
            return model
        return DistributedDataParallel(model, find_unused_parameters=not whole)

    def synchronised(
        self, replica: nn.Module, enabled: bool
    ) -> contextlib.AbstractContextManager[None]:
        """Context for the forward and backward pass of a batch.

        Args:
            replica: of :meth:`replica`.
            enabled: whether gradients are averaged over the processes after this batch.
        """
        if isinstance(replica, DistributedDataParallel) and not enabled:
            return replica.no_sync()
        return contextlib.nullcontext()

    def total(self, value: int) -> int:
        """Sum of a value over the processes."""
        if self.world == 1:
            return value
        total = torch.tensor(value, device=self.device)
        dist.all_reduce(total)
        return int(total)

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process has set it."""
        if self.world == 1:
            return list(flags)
        counts = torch.tensor([int(flag) for flag in flags], device=self.device)
        dist.all_reduce(counts)
        return [bool(count) for count in counts.tolist()]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average gradients over the processes, where no backward pass has done so."""
        if self.world == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.world

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()
