"""Data-parallel training: what the processes that train one model have to agree on.

Whatever decides what a process does next (when to save, when to stop, the learning rate) must be
the same in all of them. Otherwise one waits in a collective operation that the others never enter.

A step's batches are computed without any exchange. What every process then needs to know goes over
the CPU (gloo), also where gradients go from GPU to GPU (NCCL): gloo notices at once that a process
has ended.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from las.errors import LASError

T = TypeVar("T")

LOST = "another process of the training"
"""How the message of a :class:`LostProcessError` begins."""


class LostProcessError(LASError):
    """Another process of the training has ended, or does not answer."""


@contextmanager
def joined(cuda: bool, minutes: float) -> Iterator[dist.Store]:
    """Join the processes that ``las train`` or torchrun has started.

    Args:
        cuda: whether each process computes on a GPU.
        minutes: how long to wait for a process that does not answer.

    Yields:
        a store that all processes share.

    Raises:
        LostProcessError: they cannot be reached.
    """
    limit = timedelta(minutes=minutes)
    try:
        store, rank, world = next(iter(dist.rendezvous("env://", timeout=limit)))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True):
            # The launcher's: it still has the addresses of processes that were there before.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = dist.PrefixStore(f"las/{attempt}", store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=world,
            timeout=limit,
        )
    except (RuntimeError, ValueError) as error:
        where = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise LostProcessError(
            f"cannot join the other processes of the training at {where} "
            f"({_one_line(error)}); check that all nodes reach this address"
        ) from None
    yield store
    dist.destroy_process_group()  # after an error it could wait for a process that has ended


class DistributedGroup:
    """The processes of a training; only this one if torch.distributed was not initialised.

    Args:
        device: on which this process computes.
        minutes: how long the processes wait for one that does not answer, for the message.
    """

    def __init__(self, device: torch.device, minutes: float = 0.0) -> None:
        self.device = device
        self.minutes = minutes
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1

    @property
    def first(self) -> bool:
        """Whether this process (rank 0) is the one that writes files."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of values over the processes."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        with self._exchange():
            dist.all_reduce(sums)
        return sums.tolist()

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process has set it."""
        return [count > 0 for count in self.total([float(flag) for flag in flags])]

    def gather(self, value: T) -> list[T]:
        """The value of each process, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with self._exchange():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, in all of them; so is a LASError that it raises."""
        if self.world == 1:
            return make()
        made: list[Any] = [None]
        with self.together():
            if self.first:
                made = [make()]
        with self._exchange():
            dist.broadcast_object_list(made)
        return made[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise a LASError of one process in all of them, so that none waits for another."""
        if self.world == 1:
            yield
            return
        message = None
        try:
            yield
        except LostProcessError:
            raise
        except LASError as error:
            message = str(error)
        self.agree(message)

    def agree(self, message: str | None) -> None:
        """End all processes if one has an error.

        Args:
            message: of the error of this process; None without one.

        Raises:
            LASError: a process has an error; its message.
        """
        if self.any(message is not None)[0]:
            raise LASError(next(other for other in self.gather(message) if other is not None))

    def add_gradients(self, parameters: Sequence[nn.Parameter], used: Sequence[int]) -> None:
        """Add up gradients over the processes.

        Args:
            parameters: of the model.
            used: number of processes that have a gradient of each; without one it counts as zero,
                and stays away if no process has one.
        """
        if self.world == 1:
            return
        chosen = [one for one, wanted in zip(parameters, used, strict=True) if wanted]
        for parameter in chosen:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._on_all([one.grad for one in chosen if one.grad is not None], dist.all_reduce)

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors the values that they have in the first process."""
        if self.world > 1:
            self._on_all(tensors, lambda flat: dist.broadcast(flat, 0))

    def _on_all(self, tensors: Sequence[Tensor], operation: Callable[[Tensor], object]) -> None:
        """A collective operation on many tensors at once."""
        if not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        with self._exchange():
            operation(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.total([0.0])  # nothing would be exchanged for no value

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Errors of a collective operation: another process has ended, or does not answer."""
        try:
            yield
        except RuntimeError as error:
            reason = _one_line(error)
            late = "imed out" in reason or "imeout" in reason
            what = f"did not answer for {self.minutes:g} minutes" if late else "has ended"
            raise LostProcessError(
                f"{LOST} {what}: see what it said last; the same command resumes from the last "
                "checkpoint"
            ) from error


def first_to_say(store: dist.Store | None, line: str) -> bool:
    """Whether no other process of this machine has said a line; True where nobody knows.

    Args:
        store: of the training, if the processes have met.
        line: for the user.
    """
    if store is None:
        return True
    try:
        return store.add(f"said/{os.environ.get('GROUP_RANK', '0')}/{line}", 1) == 1
    except RuntimeError:  # the process that has the store has ended
        return True


def report(line: str, consequence: bool) -> None:
    """Leave a line for the launcher, which takes the earliest for the cause.

    Torch's ``record`` would leave a traceback, which torchrun prints.

    Args:
        line: the error that ends this process.
        consequence: whether the error is that another process has ended.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        stamp = int(time.time()) + 3600 * consequence
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": line, "timestamp": stamp}), "utf-8")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
