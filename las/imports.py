"""What the commands import: large packages, and packages of the optional extras."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_imports() -> Iterator[None]:
    """Context in which to import torch and what needs it.

    The objects of these imports live until the process ends, but the garbage collector would scan
    them again and again, which took a fifth of the time to transcribe a short file. It is disabled
    inside, and ignores these objects afterwards. Does nothing if torch is already imported.
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
    "fastapi": "serve",
    "lhotse": "train",
    "librosa": "explain",
    "matplotlib": "explain",
    "onnx": "export",
    "onnxruntime": "export",
    "prometheus_client": "serve",
    "python_multipart": "serve",
    "pyarrow": "bulk",
    "ray": "bulk",
    "scipy": "train",
    "tensorboard": "train",
    "uvicorn": "serve",
}


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """What to do about a package that is not there, in one line; None if it is of no extra."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return None
    return (
        f"{package} is not installed, which this command needs: "
        f"pip install 'listen-attend-spell[{extra}]' (in a checkout: pip install -e '.[{extra}]')"
    )
