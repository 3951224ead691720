"""Requests to the endpoints without a socket, their answers, and files that are refused."""

import asyncio
import io

import httpx
import numpy as np
import soundfile
from speech import RATE, whistle

from las.serve.app import TRANSCRIPTIONS, create
from las.serve.upload import Limits

LIMITS = Limits(megabytes=0.5, seconds=15.0, queue=3, upload_seconds=60.0)


def ask(service, *requests):
    """Answers to requests, which are sent at once: (method, path, settings)."""

    async def run():
        transport = httpx.ASGITransport(create(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(
                *(client.request(method, path, **more) for method, path, more in requests)
            )

    return asyncio.run(run())


def post(service, content, name="talk.wav", **fields):
    data = {"model": "small", **fields}
    files = {"file": (name, content)}
    (answer,) = ask(service, ("POST", TRANSCRIPTIONS, {"data": data, "files": files}))
    return answer


def error(answer, status):
    """The error of an answer, in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    assert set(answer.json()) == {"error"} and set(found) == {"message", "type", "param", "code"}
    assert len(found["message"].splitlines()) == 1
    return found


def wav(samples, **settings):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", **settings)
    return file.getvalue()


BAD = {
    "text": b"This is a text, whatever its name says.\n" * 20,
    "empty": b"",
    "cut short": wav(whistle("ABE CAB"))[:4000],
    "not a number": wav(np.full(8000, np.nan, np.float32), subtype="FLOAT"),
    "a moment": wav(np.zeros(80)),
}
