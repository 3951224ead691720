"""Processes that train one model together, as torchrun starts them: what they have to agree on.

Whatever decides what a process does next (when to save, when to stop, the learning rate) must come
out the same in all: the others wait for it in the next exchange, for ever if it never comes.
"""

import contextlib
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """This process among the others; alone if torch.distributed was not initialised.

    Args:
        device: where it computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and evaluates."""
        return self.rank == 0

    def replica(self, model: nn.Module, whole: bool) -> nn.Module:
        """The model, or a copy that exchanges gradients with the other processes' copies.

        Args:
            model: to train; an earlier replica of it must be gone.
            whole: whether every parameter takes part in every step; else those that do are
                searched for in each, which takes time.
        """
        if self.world == 1:
            return model
        return DistributedDataParallel(model, find_unused_parameters=not whole)

    def exchange(self, replica: nn.Module, now: bool) -> contextlib.AbstractContextManager[None]:
        """Where a batch goes forward and backward: whether gradients are exchanged after it."""
        if isinstance(replica, DistributedDataParallel) and not now:
            return replica.no_sync()
        return contextlib.nullcontext()

    def total(self, value: int) -> int:
        """Sum over the processes."""
        if self.world == 1:
            return value
        total = torch.tensor(value, device=self.device)
        dist.all_reduce(total)
        return int(total)

    def any(self, *flags: bool) -> list[bool]:
        """Which of the flags any process has set."""
        if self.world == 1:
            return list(flags)
        counts = torch.tensor([int(flag) for flag in flags], device=self.device)
        dist.all_reduce(counts)
        return [bool(count) for count in counts.tolist()]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Mean of the gradients, where no backward pass has made it."""
        if self.world == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.world

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()
