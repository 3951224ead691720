"""Writing files so that they are there whole or not at all, and folders for them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from las.errors import LASError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed on success, removed on failure.

    The temporary name keeps the suffix, which tells some writers the format. Missing folders are
    made; see :func:`make_folder` for what that raises.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".partial-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it, unless it is there.

    Raises:
        LASError: that cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None


def check_folder(folder: Path) -> None:
    """Try whether files could be written to a folder, there or not; nothing is left behind.

    For before long work, of which nothing would be left either.

    Raises:
        LASError: they could not.
    """
    try:
        place = next(place for place in (folder, *folder.parents) if place.exists())
        if not place.is_dir():
            raise FileExistsError
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise _unusable(folder, error) from None


def check_file(path: Path) -> None:
    """As :func:`check_folder`, for one file.

    Raises:
        LASError: it could not be written.
    """
    if path.is_dir():
        raise LASError(f"{path}: a folder is where this file is to be; name another")
    check_folder(path.parent)


def _unusable(folder: Path, error: OSError) -> LASError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return LASError(f"{folder}: a file is where this folder is to be; name another")
    return LASError(
        f"{folder}: not a folder that can be written to ({error.strerror}); name another"
    )
