"""Writing files so that they are there whole or not at all, and by one process at a time."""

import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from las.errors import LASError

_LOCK = ".lock"
_SUFFIX_BYTES = 32  # of a temporary name, at most; names of files end at 255


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; renamed on success, removed on failure.

    The temporary name is used by nobody else, is no longer than file systems take, and keeps a
    short suffix, which tells some writers the format. The file's mode follows the umask, whatever
    the writer makes of it.

    Raises:
        LASError: the folder cannot be made.
        OSError: the file cannot be written; the error names ``path``.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".partial-{secrets.token_hex(8)}{_short_suffix(path)}")
    try:
        with naming(path, temporary):
            mode = _usual_mode(temporary)
            yield temporary
            if stat.S_IMODE(temporary.stat().st_mode) != mode:
                temporary.chmod(mode)
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


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let errors of the system that are raised here name a file.

    Those of a write name none, and those of a temporary file one that the user does not know.
    """
    try:
        yield
    except OSError as error:
        names = (error.filename, error.filename2)
        if error.filename is None or (temporary and str(temporary) in map(str, names)):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Keep other processes out of a folder that use this as well, until the block ends.

    The lock ends with its process, however that ends, and belongs to none of the processes that
    are forked from it. On a file system without locks nobody is kept out.

    Args:
        folder: made if it is missing.
        wait: until whoever has the lock lets it go.

    Yields:
        whether the folder is ours; False if it is another's.
    """
    make_folder(folder)
    path = folder / _LOCK
    descriptor = _lock(path, wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor in _held:  # not in a process that was forked meanwhile
            with suppress(OSError):
                path.unlink(missing_ok=True)  # while it is ours: nobody else's is removed
            _held.remove(descriptor)
            os.close(descriptor)


def remove_leftovers(folder: Path, suffix: str) -> None:
    """Remove temporary files that killed processes have left; only where nobody else writes."""
    for path in folder.glob(f".partial-*{suffix}"):
        path.unlink(missing_ok=True)


_held: set[int] = set()  # descriptors of the locks of this process


def _lock(path: Path, wait: bool) -> int | None:
    """A descriptor that holds the lock; None if another process does."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # there are no locks here
            pass
        except BaseException:
            os.close(descriptor)
            raise
        # Whoever had it may have removed the file before letting go.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                _held.add(descriptor)
                return descriptor
        os.close(descriptor)


def _let_go() -> None:
    """In a forked process: the lock is the parent's alone, and must not outlive it here."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def _usual_mode(path: Path) -> int:
    """The mode that a new file of this name gets; leaves none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        path.unlink()


def _short_suffix(path: Path) -> str:
    """The last two suffixes, such as ``.jsonl.gz``, or the last, if they are short."""
    for suffix in ("".join(path.suffixes[-2:]), path.suffix):
        if len(os.fsencode(suffix)) <= _SUFFIX_BYTES:
            return suffix
    return ""
