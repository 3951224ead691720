"""The exception and the warning whose messages are for the user."""

from pathlib import Path


class LASError(Exception):
    """An error that the user can fix; the message is one line that names the file and the cure.

    The command line prints the message without a traceback and exits with a non-zero status.
    """


class LASWarning(UserWarning):
    """Something that the user should know about a result; the message names the file."""


def shown(name: str | Path) -> str:
    """A name for a message: escaped if it has characters that are not printable."""
    text = str(name)
    return text if text.isprintable() else ascii(text)
