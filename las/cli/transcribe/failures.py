"""Errors in writing the result of one file, as the line that is reported for it."""

import errno

from las.cli.transcribe.inputs import Source
from las.errors import LASError


def writing_failed(source: Source, error: Exception) -> str:
    """Why the result of a file was not written.

    Raises:
        OSError: the other results would fail, too: standard output is closed, the disk is full.
    """
    if isinstance(error, LASError):
        return str(error)
    if isinstance(error, OSError):
        if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise error
        return f"{error.filename}: {error.strerror}"
    reason = " ".join(str(error).split())
    return f"{source.shown}: cannot be written ({type(error).__name__}: {reason})"
