"""The state of a training on disk: one file, whole or not at all, read without unpickling code."""

from pathlib import Path
from typing import Any

import torch

from las.errors import LASError
from las.files import replacing

_FORMAT = "las-training/1"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values under a temporary name, then rename."""
    with replacing(path) as temporary:
        torch.save({"format": _FORMAT, **state}, temporary)


def load(path: Path) -> dict[str, Any]:
    """Read what :func:`save` wrote.

    Raises:
        LASError: the file is corrupt or something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for foreign files
        raise LASError(
            f"{path}: corrupt or no training state ({type(error).__name__}); move the folder "
            "away to start anew"
        ) from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise LASError(f"{path}: not a training state of this version; move the folder away")
    return state
