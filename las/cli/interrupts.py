"""Interrupts: SIGTERM ends a command as Ctrl-C does, with its results whole."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class _Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt on SIGTERM, too; only the main thread can ask for that."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """The exit status after an interrupt, as shells have it: 130, or 143 after SIGTERM."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)
