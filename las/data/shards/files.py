"""Files of a shard folder: of this machine, or fetched into a cache of limited size.

Whatever the address, a shard is fetched whole, once for all processes of a machine: utterances are
then read from it in any order, which streams and pipes do not allow.
"""

import hashlib
import os
import shlex
import shutil
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from lhotse.serialization import open_best
from lhotse.utils import is_valid_url

from las.config import DataConfig
from las.errors import LASError, shown
from las.storage.atomic import locked, replacing

SUFFIX = ".shards"
_ATTEMPTS = 3
_TIMEOUT = 60.0  # seconds without an answer
_COPY = "copy"


def is_remote(origin: str) -> bool:
    """Whether a shard folder has an address instead of a path."""
    return origin.startswith("pipe:") or is_valid_url(origin)


class ShardFiles:
    """The files of one shard folder.

    Args:
        origin: a folder; or an address, ``https://server/train.shards`` or any that lhotse opens;
            or a command that prints a file, ``pipe:ssh server cat train.shards/{}``.
        config: where copies are kept.
    """

    def __init__(self, origin: str, config: DataConfig) -> None:
        self.origin = origin
        self.remote = is_remote(origin)
        default = Path(tempfile.gettempdir()) / f"las-shards-{os.getuid()}"
        self._cache = Path(config.cache) if config.cache else default
        self._limit = int(config.cache_gigabytes * 1e9)
        self._copies = self._cache

    def place(self, name: str) -> str:
        """Path, address or command of a file."""
        if "{}" in self.origin and self.remote:
            quoted = shlex.quote(name) if self.origin.startswith("pipe:") else name
            return self.origin.replace("{}", quoted)
        return f"{self.origin.rstrip('/')}/{name}"

    def index(self, name: str) -> bytes:
        """The content of the index, which also tells copies of these shards from older ones.

        Raises:
            LASError: it is not there.
        """
        if self.remote:
            with tempfile.TemporaryDirectory(prefix="las-") as folder:
                path = Path(folder) / _COPY
                self._fetch(name, path, None)
                content = path.read_bytes()
        else:
            try:
                content = Path(self.place(name)).read_bytes()
            except OSError:
                raise LASError(
                    f"{shown(self.origin)}: no shards, or not all of them; make them with "
                    "`las prepare ... --shards`, or run it again to the end"
                ) from None
        key = hashlib.sha256(self.origin.encode() + b"\0" + content).hexdigest()
        self._copies = self._cache / key[:16]
        return content

    def open(self, name: str, size: int) -> BinaryIO:
        """Open a file, which must have a number of bytes.

        Raises:
            LASError: it is missing, cannot be fetched or has another size.
        """
        if self.remote:
            return self._open_copy(name, size)
        path = Path(self.place(name))
        try:
            file = path.open("rb")
        except OSError as error:
            raise LASError(
                f"{shown(path)}: cannot be read ({error.strerror}); copy it again, or run "
                "`las prepare ... --shards` again"
            ) from None
        if (found := os.fstat(file.fileno()).st_size) != size:
            file.close()
            raise LASError(
                f"{shown(path)}: {found} bytes, and the index says {size}; copy it again, or run "
                "`las prepare ... --shards` again"
            )
        return file

    def fetch_ahead(self, name: str, size: int) -> None:
        """Fetch a file that will be opened; who opens it reports if it cannot be fetched."""
        try:
            self.open(name, size).close()
        except (LASError, OSError):
            return

    def _open_copy(self, name: str, size: int) -> BinaryIO:
        folder = self._copies / name
        path = folder / _COPY
        while True:
            try:
                with locked(folder, wait=True):  # one process fetches, the others wait
                    fetched = not path.is_file()
                    if fetched:
                        self._fetch(name, path, size)
                    file = path.open("rb")
                    os.utime(path)
            except FileNotFoundError:  # another process deleted it, to make room
                continue
            if fetched:
                self._make_room(path)
            return file

    def _fetch(self, name: str, path: Path, size: int | None) -> None:
        place = self.place(name)
        for attempt in range(_ATTEMPTS):
            time.sleep(attempt**2)
            try:
                with replacing(path) as temporary:
                    with _opened(place) as source, temporary.open("wb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
                    found = temporary.stat().st_size
                    if found != (size or found) or not found:
                        raise EOFError(f"{found} bytes of {size or 'the index'}")
                return
            except Exception as error:  # of various libraries
                problem = " ".join(str(error).split())[:200] or type(error).__name__
        raise LASError(
            f"{shown(place)}: cannot be fetched ({problem}); check the address, the network, the "
            f"space in {self._cache}, and that the shards did not change"
        )

    def _make_room(self, kept: Path) -> None:
        """Delete the copies that were not opened for the longest time."""
        found = []
        for path in self._cache.glob(f"*/*/{_COPY}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            if path != kept:
                path.unlink(missing_ok=True)  # who has it open still reads it
                with suppress(OSError):  # while another process fetches it
                    path.parent.rmdir()
                total -= size


def _opened(place: str) -> Any:
    if place.startswith(("http://", "https://")):  # for which lhotse needs another package
        return urllib.request.urlopen(place, timeout=_TIMEOUT)
    return open_best(place, "rb")
