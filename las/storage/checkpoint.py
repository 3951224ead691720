"""The folder of a training: one process at a time, and its state, read without unpickling code."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from las.errors import LASError
from las.storage.atomic import locked, remove_leftovers, replacing

STATE = "training.pt"
_FORMAT = "las-training/1"


class ProcessGroup(Protocol):
    """The processes of one training; see :class:`las.training.distributed.DistributedGroup`."""

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""

    def any(self, *flags: bool) -> list[bool]:
        """Which of the flags any process has set."""


@contextmanager
def exclusive(folder: Path, group: ProcessGroup | None = None) -> Iterator[None]:
    """Have the folder of a training for oneself.

    Args:
        folder: made if it is missing.
        group: processes that train together; the first takes the folder for all of them.

    Raises:
        LASError: another training has it; in all processes, so that none waits for the others.
    """
    first = group is None or group.first
    with ExitStack() as stack:
        taken = first and not stack.enter_context(locked(folder))
        if any(group.any(taken)) if group is not None else taken:
            raise LASError(
                f"{folder}: another training runs in this folder; wait for its end, or choose a "
                "new folder"
            )
        if first:
            for inside in (folder, folder / "model", folder / "best", folder / "epochs"):
                remove_leftovers(inside, ".pt")
                remove_leftovers(inside, ".safetensors")
        yield


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values under a temporary name, then rename.

    Raises:
        OSError: it cannot be written, say because the disk is full.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save({"format": _FORMAT, **state}, file)
        except RuntimeError as error:  # behind which torch hides what the file raised
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


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
