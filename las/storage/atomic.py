"""Atomic writing of files, and locks on folders."""

import fcntl
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from las.errors import LASError

_LOCK = ".lock"
_SUFFIX_BYTES = 32  # maximum in a temporary name; file names have at most 255


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: to a temporary file beside it, which replaces it on success.

    The temporary file is removed on failure. What a killed process has left is overwritten by the
    next that writes this file. Its name is short enough for any file system, and keeps a short
    suffix, by which some writers choose the format. The mode of the file follows the umask.

    Yields:
        the path to write to.

    Raises:
        LASError: the folder cannot be created.
        OSError: the file cannot be written; the error names ``path``.
    """
    make_folder(path.parent)
    with _reserved(path) as (temporary, mode):
        try:
            with attribute_errors(path, temporary):
                yield temporary
                if stat.S_IMODE(temporary.stat().st_mode) != mode:
                    temporary.chmod(mode)
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _reserved(path: Path) -> Iterator[tuple[Path, int]]:
    """A name for a temporary file that no other process uses, and the mode of a new file.

    It follows from the name of the file, and is reserved by a lock; if another process has that,
    or the file system has no locks, it is random.
    """
    suffix = _short_suffix(path)
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    lock = path.with_name(f".partial-{digest}-lock")
    with attribute_errors(path, lock):
        descriptor = _lock(lock, wait=False, needed=True)
    if descriptor is None:
        temporary = path.with_name(f".partial-{secrets.token_hex(8)}{suffix}")
        with attribute_errors(path, temporary):
            mode = _usual_mode(temporary)
        yield temporary, mode
        return
    try:
        temporary = path.with_name(f".partial-{digest}{suffix}")
        temporary.unlink(missing_ok=True)  # of a process that was killed
        yield temporary, stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        _release(lock, descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, unless it exists.

    Raises:
        LASError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None


def check_folder(folder: Path) -> None:
    """Check, before long work, that files can be written to a folder, whether it exists or not.

    Raises:
        LASError: they cannot.
    """
    try:
        place = next(place for place in (folder, *folder.parents) if place.exists())
        if not place.is_dir():
            raise FileExistsError
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise _unusable(folder, error) from None


def check_file(path: Path) -> None:
    """Check, before long work, that a file can be written.

    Raises:
        LASError: it cannot.
    """
    if path.is_dir():
        raise LASError(f"{path}: this file cannot be written, as it is a folder; name another")
    check_folder(path.parent)


def _unusable(folder: Path, error: OSError) -> LASError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return LASError(
            f"{folder}: this folder cannot be created, as a file is in its place; name another"
        )
    return LASError(
        f"{folder}: not a folder that can be written to ({error.strerror}); name another"
    )


@contextmanager
def attribute_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Make each OSError that is raised inside name a file.

    Errors of a write name no file, and those of a temporary file one that the user does not know.

    Args:
        path: the file to name.
        temporary: a temporary file that is written in its place.
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
    """Hold a lock on a folder, which keeps out other processes that use this function.

    The lock ends with its process, also if that is killed, and is not inherited by forked
    processes. File systems without locks keep nobody out.

    Args:
        folder: created if it is missing.
        wait: until the lock is free.

    Yields:
        whether this process has the lock.
    """
    make_folder(folder)
    path = folder / _LOCK
    descriptor = _lock(path, wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _release(path, descriptor)


def remove_leftovers(folder: Path, suffix: str) -> None:
    """Remove temporary files of killed processes; only while no other process writes."""
    for path in folder.glob(f".partial-*{suffix}"):
        path.unlink(missing_ok=True)


_held: set[int] = set()  # descriptors of the locks of this process


def _lock(path: Path, wait: bool, needed: bool = False) -> int | None:
    """A descriptor that holds the lock; None if another process does.

    On a file system without locks it is also None if a lock is needed.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # the file system has no locks
            if needed:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                return None
        except BaseException:
            os.close(descriptor)
            raise
        # The previous owner may have removed the file before unlocking it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                _held.add(descriptor)
                return descriptor
        os.close(descriptor)


def _release(path: Path, descriptor: int) -> None:
    """Remove the file of a lock, and the lock; nothing in a process that was forked inside."""
    if descriptor not in _held:
        return
    with suppress(OSError):
        path.unlink(missing_ok=True)  # while locked: it is not another's
    _held.remove(descriptor)
    os.close(descriptor)


def _release_after_fork() -> None:
    """Release the locks in a forked process: they belong to the parent."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_release_after_fork)


def _usual_mode(path: Path) -> int:
    """The mode that a new file of this name gets; the file is removed again."""
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
