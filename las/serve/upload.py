"""Uploads: to temporary files without a name, no larger and no slower than allowed."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import python_multipart  # noqa: F401 (Starlette imports it only where a form is read)
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from las.audio import reader
from las.errors import shown
from las.serve.errors import SERVER, APIError

_REST = 1 << 16  # bytes of a form beside the file
_FIELDS = 32
_NAME = 200  # characters of a file's name in messages


@dataclass(frozen=True)
class Limits:
    """What a server accepts."""

    megabytes: float = 100.0  # of a file
    seconds: float = 7200.0  # of audio in a file
    queue: int = 64  # requests that are accepted and not answered yet
    upload_seconds: float = 300.0  # for an upload to arrive

    @property
    def bytes(self) -> int:
        """Of a file."""
        return math.floor(self.megabytes * 1e6)


@asynccontextmanager
async def received(request: Request, limits: Limits) -> AsyncIterator[FormData]:
    """The form of a request; its file is gone after the context.

    Raises:
        APIError: it is too large or too slow, or no form with one file.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise APIError(400, f"send multipart/form-data, not {kind or 'nothing'}")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.bytes + _REST:
        raise _too_large(limits)
    counted = Request(request.scope, _Counted(request, limits))
    try:
        async with asyncio.timeout(limits.upload_seconds):
            form = await counted.form(max_files=1, max_fields=_FIELDS, max_part_size=_REST)
    except TimeoutError:
        what = f"the upload took more than {limits.upload_seconds:g} s"
        raise APIError(408, what, code="upload_timeout") from None
    except OSError as error:
        what = f"the server cannot store the upload ({error.strerror})"
        raise APIError(503, what, kind=SERVER, retry_after=60) from None
    try:
        yield form
    finally:
        await form.close()


class _Counted:
    """Messages of a request until there are too many bytes."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self.request, self.limits, self.count = request, limits, 0

    async def __call__(self) -> Message:
        message = await self.request.receive()
        self.count += len(message.get("body", b""))
        if self.count > self.limits.bytes + _REST:
            raise _too_large(self.limits)
        return message


def file_of(form: FormData, limits: Limits) -> UploadFile:
    """The file of a form.

    Raises:
        APIError: there is none, it is empty or too large.
    """
    file = form.get("file")
    if not isinstance(file, UploadFile):
        what = "file: send the audio in this field, with a file name"
        raise APIError(400, what, param="file", code="missing_required_parameter")
    if (file.size or 0) > limits.bytes:
        raise _too_large(limits)
    return file


def _too_large(limits: Limits) -> APIError:
    what = f"the file is larger than {limits.megabytes:g} MB; send a compressed or a shorter one"
    return APIError(413, what, param="file", code="file_too_large")


def path_of(file: UploadFile) -> Path:
    """Where this process can open an uploaded file; on disk from now on."""
    file.file.flush()
    return Path(f"/dev/fd/{file.file.fileno()}")


def named(message: str, path: Path, file: UploadFile) -> str:
    """A message about a file with the client's name for it in place of the server's path."""
    return message.replace(str(path), shown(name_of(file)))


def name_of(file: UploadFile) -> str:
    """The client's name for a file, its start if it is long."""
    return (file.filename or "file")[:_NAME]


async def check_length(path: Path, limits: Limits) -> None:
    """Check the duration of an audio file, decoding no more of it than is allowed.

    Raises:
        AudioError: it is not audio.
        APIError: it is too long.
    """
    seconds = await asyncio.to_thread(reader.seconds, path, limits.seconds)
    if seconds > limits.seconds:
        what = f"the audio is longer than {limits.seconds:g} s; send it in parts"
        raise APIError(413, what, param="file", code="audio_too_long")


async def gone(request: Request) -> None:
    """Wait until the client of a request, all of which is read, has closed the connection."""
    with contextlib.suppress(ClientDisconnect):
        while (await request.receive())["type"] != "http.disconnect":
            pass
