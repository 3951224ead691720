"""Checkpoints of a training, loaded without running pickled code, and the lock on its folder."""

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
    """Reserve the folder of a training, and remove temporary files from it.

    Args:
        folder: created if it is missing.
        group: processes that train together; the first takes the folder for all of them.

    Raises:
        LASError: another training uses it; raised in all processes, so that none waits.
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
    """Write tensors and simple values, atomically.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save({"format": _FORMAT, **state}, file)
        except RuntimeError as error:  # torch raises it in place of the OSError
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load(path: Path) -> dict[str, Any]:
    """Load what :func:`save` wrote.

    Raises:
        LASError: the file is corrupt, or not a checkpoint of this version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for other files
        raise LASError(
            f"{path}: corrupt or no training state ({type(error).__name__}); move the folder "
            "away to start again"
        ) from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise LASError(
            f"{path}: not a training state of this version; move the folder away to start again"
        )
    return state
