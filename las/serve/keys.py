"""API keys: from the environment or a file, compared in constant time."""

import hashlib
import hmac
import os
from pathlib import Path

from las.errors import LASError, shown
from las.serve.errors import APIError

VARIABLE = "LAS_API_KEY"


class Keys:
    """The keys that are accepted; without any, everybody is.

    Args:
        keys: as clients send them.
    """

    def __init__(self, keys: list[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: str | None) -> None:
        """Check the header ``Authorization`` of a request.

        Raises:
            APIError: it holds none of the keys.
        """
        if not self._digests:
            return
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            what = "no API key; send the header `Authorization: Bearer KEY`"
            raise APIError(401, what, code="invalid_api_key")
        given = _digest(key.strip())
        # All are compared, each in constant time.
        if not sum(hmac.compare_digest(given, known) for known in self._digests):
            raise APIError(401, "incorrect API key", code="invalid_api_key")


def load(path: Path | None) -> Keys:
    """The keys of a file, one a line, and that of the environment variable ``LAS_API_KEY``.

    Raises:
        LASError: the file cannot be read, or there is no key where one was meant to be.
    """
    keys = []
    if path is not None:
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            what = getattr(error, "strerror", None) or "it is not text"
            raise LASError(f"{shown(path)}: cannot be read ({what}); give a file of keys") from None
        keys = [line.strip() for line in lines if line.strip()]
        if not keys:
            raise LASError(f"{shown(path)}: has no key; write one on each line")
    if VARIABLE in os.environ:
        if not os.environ[VARIABLE].strip():
            raise LASError(f"{VARIABLE} is empty; unset it, or set a key")
        keys.append(os.environ[VARIABLE].strip())
    for key in keys:
        if not key.isascii() or not key.isprintable() or " " in key:
            raise LASError("an API key has spaces or characters beyond ASCII; use letters, digits")
    return Keys(keys)


def _digest(key: str) -> bytes:
    """Of the same length for all keys, which a comparison in constant time needs."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
