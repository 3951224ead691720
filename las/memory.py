"""Work that does not fit into memory: it is done in halves, with gradients whole or not at all."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import nn

B = TypeVar("B")
T = TypeVar("T")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "can't allocate memory", "bad_alloc")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


class Pieces(Generic[B, T]):
    """What is computed of a batch: at once, or of its halves where memory runs out.

    Args:
        batch: the batch.
        compute: of the batch, or of a part of it.
        halves: of a part; empty if it cannot be divided.

    Attributes:
        done: What was computed of each part, in order.
        halved: Number of parts that were divided as they did not fit into memory.
        left_out: Parts that did not fit and cannot be divided.

    Raises:
        RuntimeError: another error than that memory ran out.
    """

    def __init__(
        self, batch: B, compute: Callable[[B], T], halves: Callable[[B], Sequence[B]]
    ) -> None:
        self.done: list[T] = []
        self.halved = 0
        self.left_out: list[B] = []
        waiting = [batch]
        while waiting:
            part = waiting.pop(0)
            try:
                self.done.append(compute(part))
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            # Not in the handler: the error keeps what the attempt has allocated.
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # memory that torch keeps is in pieces of other sizes
            smaller = halves(part)
            waiting[:0] = smaller
            if smaller:
                self.halved += 1
            else:
                self.left_out.append(part)


@contextmanager
def added_whole(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Add the gradients of a backward pass to those that parameters have, or none of them.

    A pass that runs out of memory leaves gradients of some parameters.
    """
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    except BaseException:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
        raise
    for parameter, gradient in zip(parameters, before, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)
