"""What the commands import: large packages, and packages of the optional extras."""

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


# Packages that transcription does without, and the extra of pyproject.toml that has each.
EXTRAS = {
    "lhotse": "train",
    "librosa": "explain",
    "matplotlib": "explain",
    "scipy": "train",
    "tensorboard": "train",
}


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """What to do about a package that is not there, in one line; None if it is of no extra."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return None
    return (
        f"{package} is not installed, which this command needs: "
        f"pip install 'listen-attend-spell[{extra}]'"
    )
