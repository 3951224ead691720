"""The endpoints: transcriptions and models as OpenAI's API has them, and those beside it.

These are the page at ``/``, explanations, health and metrics.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from las.audio.reader import AudioError
from las.serve import assets, errors, explaining, parameters, responses, upload
from las.serve.errors import APIError
from las.serve.middleware import Observed
from las.serve.parameters import Parameters
from las.serve.service import Service
from las.transcription.segments import transcription
from las.transcription.transcript import Failure

TRANSCRIPTIONS = "/v1/audio/transcriptions"
MODELS = "/v1/models"
EXPLANATIONS = "/explanations"
_CLOSED = 499  # the status of a request whose client has gone; nobody receives it
_T = TypeVar("_T")


def create(service: Service) -> FastAPI:
    """The application of a service."""

    def check_key(request: Request) -> None:
        service.keys.check(request.headers.get("authorization"))

    # No pages of documentation: they load scripts from other servers.
    app = FastAPI(title="las serve", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(APIError, errors.of_request)
    app.add_exception_handler(HTTPException, errors.of_http)
    app.add_exception_handler(Exception, errors.of_program)
    app.add_middleware(
        Observed,
        metrics=service.metrics,
        endpoints={
            TRANSCRIPTIONS: "transcriptions",
            MODELS: "models",
            EXPLANATIONS: "explanations",
        },
    )
    private = [Depends(check_key)]
    app.include_router(assets.router())

    @app.post(TRANSCRIPTIONS, dependencies=private)
    async def transcriptions(request: Request) -> Response:
        return await _accepted(service, request, _transcribe)

    @app.post(EXPLANATIONS, dependencies=private)
    async def explanations(request: Request) -> Response:
        return await _accepted(service, request, _explain)

    @app.get(MODELS, dependencies=private)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service, name) for name in service.models]}

    @app.get(MODELS + "/{name:path}", dependencies=private)
    async def model(name: str) -> dict[str, Any]:
        if name not in service.models:
            what = f"the model {name!r} does not exist; there is {service.models[0]!r}"
            raise APIError(404, what, param="model", code="model_not_found")
        return _model(service, name)

    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> Response:
        if service.stopping or not service.worker.alive:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", dependencies=private)
    async def metrics() -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return app


def _model(service: Service, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "listen-attend-spell",
    }


async def _accepted(
    service: Service, request: Request, answer: Callable[[Service, Request], Awaitable[Response]]
) -> Response:
    """Answer a request with a file, unless there are too many, or its client goes away."""
    try:
        with service.accepted():
            return await answer(service, request)
    except ClientDisconnect:
        return Response(status_code=_CLOSED)


@asynccontextmanager
async def _received(
    service: Service, request: Request
) -> AsyncIterator[tuple[UploadFile, Path, Parameters]]:
    """The upload of a request, within the limits, where it can be read, and what is asked."""
    async with upload.received(request, service.limits) as form:
        file = upload.file_of(form, service.limits)
        asked = parameters.parse(form, service.models, service.language)
        path = upload.path_of(file)
        try:
            await upload.check_length(path, service.limits)
            yield file, path, asked
        except AudioError as error:
            raise _unusable(upload.named(str(error), path, file)) from None


async def _transcribe(service: Service, request: Request) -> Response:
    """Answer one request."""
    async with _received(service, request) as (file, path, asked):
        job = service.worker.submit(path)
        result = await _result(job.result, job.abandon, request)
        if isinstance(result, Failure):
            raise _unusable(upload.named(result.reason, path, file))
        rate, language = service.worker.transcriber.rate, service.language
        found = await asyncio.to_thread(transcription, result, rate, language)
        return responses.render(found, asked)


async def _explain(service: Service, request: Request) -> Response:
    """Answer a request with the page of ``las explain``."""
    async with _received(service, request) as (file, path, asked):
        transcriber = service.worker.transcriber
        sound = await asyncio.to_thread(explaining.read, path, transcriber.rate)
        name = upload.name_of(file)
        call = service.worker.call(
            partial(explaining.explain, transcriber, sound, name, asked.model)
        )
        found = await _result(call.result, call.abandon, request)
        return assets.explanation(await asyncio.to_thread(explaining.page, found))


async def _result(result: "Future[_T]", abandon: Callable[[], object], request: Request) -> _T:
    """Wait for what the worker does, unless the client goes away.

    Raises:
        APIError: the server failed.
        ClientDisconnect: nobody waits for the answer.
    """
    done = asyncio.wrap_future(result)
    gone = asyncio.ensure_future(upload.gone(request))
    either: set[asyncio.Future[Any]] = {done, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            abandon()
            raise ClientDisconnect
        return done.result()
    except ClientDisconnect:
        raise
    except Exception:
        raise errors.failed() from None
    finally:
        gone.cancel()


def _unusable(reason: str) -> APIError:
    return APIError(400, reason, param="file", code="invalid_audio")
