"""Errors as OpenAI's servers send them: a status and one JSON object."""

from collections.abc import Mapping

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

INVALID = "invalid_request_error"
SERVER = "server_error"


class APIError(Exception):
    """A request that is refused or has failed.

    Args:
        status: of HTTP.
        message: what is wrong and what to do, one line; names nothing of the server's disk.
        param: the field that is to blame.
        code: for programs.
        kind: the error's ``type``.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = INVALID,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code, self.kind, self.retry_after = code, kind, retry_after


def response(error: APIError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a request with an error."""
    content = {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }
    sent = dict(headers or {})
    if error.retry_after is not None:
        sent["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    return JSONResponse(content, error.status, sent)


def of_request(_: Request, error: Exception) -> JSONResponse:
    """An exception handler for :class:`APIError`."""
    assert isinstance(error, APIError)
    return response(error)


def of_http(request: Request, error: Exception) -> JSONResponse:
    """An exception handler for what the framework refuses: a path, a method, a broken form."""
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code in (404, 405):
        message = f"{request.method} {request.url.path}: {message}"
    return response(APIError(error.status_code, message), error.headers)


def of_program(_: Request, __: Exception) -> JSONResponse:
    """An exception handler for everything else; the log has the traceback."""
    return response(failed())


def failed() -> APIError:
    """The error of a request that the server cannot answer through no fault of the client."""
    return APIError(500, "the server failed to transcribe this file; its log says why", kind=SERVER)
