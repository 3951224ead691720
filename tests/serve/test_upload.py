"""Uploads that are too large, too long, too many or too slow, and clients that go away."""

import asyncio
import io
import threading

import numpy as np
import pytest
import soundfile
from speech import RATE

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import httpx

from las.serve import middleware
from las.serve.app import TRANSCRIPTIONS, create
from las.serve.upload import Limits
from tests.serve.client import LIMITS, ask, error, post


def test_a_file_that_is_too_large(service):
    content = bytes(LIMITS.bytes + 1)
    assert error(post(service, content), 413)["code"] == "file_too_large"
    far = bytes(2 * LIMITS.bytes)
    assert error(post(service, far), 413)["param"] == "file"
    boundary = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    read = 0

    async def parts():
        nonlocal read
        yield boundary
        for _ in range(1000):
            read += 1
            yield bytes(1 << 14)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    (answer,) = ask(service, ("POST", TRANSCRIPTIONS, {"content": parts(), "headers": headers}))
    assert error(answer, 413)["code"] == "file_too_large"


@pytest.mark.parametrize("kind", ["WAV", "MP3"])  # the header of the first tells its length
def test_a_file_that_is_too_long_is_not_decoded(service, monkeypatch, kind):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(round(20 * RATE)), RATE, format=kind)
    monkeypatch.setattr(service.worker, "submit", None)
    assert error(post(service, file.getvalue()), 413)["code"] == "audio_too_long"


class Upload:
    """A form whose second half is sent when it is let go."""

    def __init__(self, content):
        whole = httpx.Request(
            "POST", "http://test", files={"file": ("a.wav", content)}, data={"model": "small"}
        )
        self.content, self.headers = whole.read(), dict(whole.headers)
        self.begun, self.end = asyncio.Event(), asyncio.Event()

    async def parts(self):
        yield self.content[:1000]
        self.begun.set()
        await self.end.wait()
        yield self.content[1000:]


def test_a_full_queue_and_a_server_that_stops(service, sounds, alone):
    async def run():
        transport = httpx.ASGITransport(create(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            uploads = [Upload(sounds[0].read_bytes()) for _ in range(LIMITS.queue)]
            tasks = [
                asyncio.ensure_future(
                    client.post(TRANSCRIPTIONS, content=u.parts(), headers=u.headers)
                )
                for u in uploads
            ]
            for upload in uploads:
                await upload.begun.wait()
            more = {"files": {"file": ("a.wav", b"x")}, "data": {"model": "small"}}
            full = await client.post(TRANSCRIPTIONS, **more)
            length = (await client.get("/metrics")).text
            stopped = asyncio.ensure_future(service.stop())
            await asyncio.sleep(0)
            stopping = await client.post(TRANSCRIPTIONS, **more)
            health = await client.get("/healthz")
            assert not stopped.done()
            for upload in uploads:
                upload.end.set()
            answers = await asyncio.gather(*tasks)
            await stopped
            return full, length, stopping, health, answers

    full, length, stopping, health, answers = asyncio.run(run())
    assert error(full, 429)["code"] == "rate_limit_exceeded"
    assert 1 <= int(full.headers["retry-after"]) <= 30
    assert f"\nlas_queue_length {float(LIMITS.queue)}\n" in length
    assert error(stopping, 503)["code"] == "server_stopping" and "retry-after" in stopping.headers
    assert (health.status_code, health.json()) == (503, {"status": "stopping"})
    assert {answer.json()["text"] for answer in answers} == {alone[sounds[0]].text}
    assert service.running == 0


def test_an_upload_that_is_too_slow(service, sounds, monkeypatch):
    service.limits = Limits(upload_seconds=0.01)
    monkeypatch.setattr(middleware, "_DISCARDED_SECONDS", 0.01)

    async def run():
        transport = httpx.ASGITransport(create(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            upload = Upload(sounds[0].read_bytes())  # whose second half never comes
            return await client.post(TRANSCRIPTIONS, content=upload.parts(), headers=upload.headers)

    assert error(asyncio.run(run()), 408)["code"] == "upload_timeout"


def test_a_client_that_goes_away_is_forgotten(service, sounds, monkeypatch):
    jobs, submit = [], service.worker.submit
    lock = threading.Lock()
    whole = httpx.Request(
        "POST",
        "http://test",
        files={"file": ("a", sounds[2].read_bytes())},
        data={"model": "small"},
    )
    messages = [
        {"type": "http.request", "body": whole.read(), "more_body": False},
        {"type": "http.disconnect"},
    ]
    decode = service.worker.transcriber.decode

    def held(*arguments):
        with lock:
            return decode(*arguments)

    def noted(path):
        jobs.append(submit(path))
        return jobs[-1]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    sent = []
    monkeypatch.setattr(service.worker.transcriber, "decode", held)
    monkeypatch.setattr(service.worker, "submit", noted)
    headers = [(k.lower().encode(), v.encode()) for k, v in whole.headers.items()]
    scope = {"type": "http", "method": "POST", "path": TRANSCRIPTIONS, "headers": headers}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "server": ("test", 80)}
    with lock:
        asyncio.run(create(service)(scope, receive, send))
    assert sent[0]["status"] == 499 and jobs[0].abandoned and service.running == 0
    monkeypatch.undo()
    assert post(service, sounds[0].read_bytes()).status_code == 200  # the worker goes on
    assert jobs[0].result.cancelled()
