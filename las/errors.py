"""The one exception whose message is meant for the user."""

from pathlib import Path


class LASError(Exception):
    """Something the user can cure; the message is one line and names the thing and the cure.

    The command line prints the message without a traceback and exits with a non-zero status.
    """


class LASWarning(UserWarning):
    """Something that the user should know of a result; the message names the thing."""


def shown(name: str | Path) -> str:
    """A name as messages have it, on one line: quoted and escaped if it is not printable."""
    text = str(name)
    return text if text.isprintable() else ascii(text)
