"""Large imports of the commands, which are what a short command spends its time on."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Import torch and what needs it inside: what comes of that stays until the process ends.

    The collector of garbage would look through it again and again, and once more at exit, which
    took a fifth of the time of transcribing a short file. It pauses inside, and passes over these
    objects later. Where torch is imported already, nothing of all this happens.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
