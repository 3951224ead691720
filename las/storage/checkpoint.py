"""Checkpoints of a training, loaded without running pickled code, and the lock on its folder.

A state ends with its checksum. The state before it is kept, and taken if the last is damaged or
missing.
"""

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import torch

from las.errors import LASError
from las.storage.atomic import locked, remove_leftovers, replacing

STATE = "training.pt"
_FORMAT = "las-training/1"
_MARK = b"\nlas-sha256:"  # before the checksum, which ends a file


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
    """Write tensors and simple values with a checksum, atomically; keeps the state of before.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        summed = _Summed(file)
        try:
            torch.save({"format": _FORMAT, **state}, cast(BinaryIO, summed))
        except RuntimeError as error:  # torch raises it in place of the OSError
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        file.write(_MARK + summed.digest.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())
        _keep(path)


def load(path: Path) -> dict[str, Any]:
    """Load what :func:`save` wrote, or a state of earlier versions, which have no checksum.

    Raises:
        LASError: the file is corrupt, or not a checkpoint of this version.
    """
    try:
        content = _content(path)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for other files
        raise DamagedStateError(
            f"{path}: corrupt or no training state ({type(error).__name__}); move the folder "
            "away to start again"
        ) from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise LASError(
            f"{path}: not a training state of this version; move the folder away to start again"
        )
    return state


def exists(path: Path) -> bool:
    """Whether there is a training state, or the one before it."""
    return path.is_file() or previous(path).is_file()


def load_last(path: Path) -> tuple[dict[str, Any], str | None]:
    """Load a training state, or the one before it if it is damaged or missing.

    Args:
        path: of the last state; one of the two :func:`exists`.

    Returns:
        the state, and a line for the user if it is the one before.

    Raises:
        LASError: see :func:`load`.
    """
    before = previous(path)
    if not path.is_file():
        state = load(before)
        return state, f"{path} is missing: resumes from the state before it, {before.name}"
    try:
        return load(path), None
    except DamagedStateError:
        with suppress(LASError):
            state = load(before)
            return state, f"{path} is damaged: resumes from the state before it, {before.name}"
        raise


def previous(path: Path) -> Path:
    """Where the state before the last one is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


class DamagedStateError(LASError):
    """A file is not the whole of what was written."""


class _Summed:
    """A file that computes the checksum of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _content(path: Path) -> bytes:
    """What torch wrote to a file.

    Raises:
        ValueError: it is not what the checksum is of.
    """
    content = path.read_bytes()
    mark = len(content) - len(_MARK) - 2 * hashlib.sha256().digest_size
    if mark < 0 or not content.startswith(_MARK, mark):
        return content  # of an earlier version, or cut off, which torch finds
    digest = content[mark + len(_MARK) :]
    content = content[:mark]
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("wrong checksum")
    return content


def _keep(path: Path) -> None:
    """Keep the last state beside the next one; a damaged one does not replace a whole one.

    At no time is there none: the file gets a second name, and then loses its first.
    """
    if not path.is_file():
        return
    last = previous(path)
    with suppress(LASError):
        load(path)
        second = path.with_name(f".partial-{secrets.token_hex(8)}{path.suffix}")
        try:
            try:
                second.hardlink_to(path)
            except OSError:  # the file system has no links
                shutil.copyfile(path, second)
            second.replace(last)
        finally:
            second.unlink(missing_ok=True)  # it is there if both were one file
