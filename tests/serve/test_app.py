"""The endpoints, without a socket: what they answer, and what they refuse."""

import asyncio
import io
import json
import threading
from dataclasses import asdict

import numpy as np
import pytest
import soundfile
from speech import RATE, whistle

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import httpx

from las.cli.transcribe.inputs import Source
from las.cli.transcribe.recognition import recognise
from las.errors import LASError
from las.serve import app, keys, languages, middleware
from las.serve.app import MODELS, TRANSCRIPTIONS, create
from las.serve.service import Service
from las.serve.upload import Limits
from las.transcription import writers
from las.transcription.segments import transcription

LIMITS = Limits(megabytes=0.5, seconds=15.0, queue=3, upload_seconds=60.0)


@pytest.fixture
def service(worker):
    return Service(worker, ["small", "whisper-1"], worker.metrics, LIMITS)


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


def test_every_format_says_what_las_transcribe_says(service, sounds, alone):
    path = sounds[2]
    expected = transcription(alone[path], RATE)
    content = path.read_bytes()
    assert post(service, content).json() == {
        "text": expected.text,
        "usage": {"type": "duration", "seconds": int(np.ceil(expected.duration))},
    }
    for kind, written in (("text", expected.text + "\n"), ("srt", None), ("vtt", None)):
        answer = post(service, content, response_format=kind)
        assert answer.text == (written or writers.render(expected, kind))
        assert answer.headers["content-type"].startswith("text/")
    segments = expected.to_dict(word_timestamps=False)["segments"]
    words = [asdict(word) for word in expected.words]
    assert set(words[0]) == {"word", "start", "end", "probability"}
    for asked, has in (([], "s"), (["word"], "w"), (["segment"], "s"), (["word", "segment"], "sw")):
        more = {"timestamp_granularities[]": asked}
        found = post(service, content, response_format="verbose_json", **more).json()
        assert (found["task"], found["language"]) == ("transcribe", "english")
        assert (found["text"], found["duration"]) == (expected.text, expected.duration)
        assert found.get("words") == (words if "w" in has else None)
        given = [{**segment, "no_speech_prob": 0.0} for segment in segments]
        assert found.get("segments") == (given if "s" in has else None)
    assert len(segments) > 1 and words


def test_what_changes_nothing_is_accepted(service, sounds, alone):
    more = {"prompt": "Paris", "temperature": "0.2", "stream": "false", "language": "en"}
    found = post(service, sounds[0].read_bytes(), chunking_strategy="auto", unknown="1", **more)
    assert found.json()["text"] == alone[sounds[0]].text
    for language in ("", "EN", "en-GB", "English"):
        assert post(service, sounds[0].read_bytes(), language=language).status_code == 200
    assert post(service, sounds[0].read_bytes(), model="whisper-1").status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": ""}, 400, "model", "invalid_value"),
        ({"model": "large"}, 404, "model", "model_not_found"),
        ({"language": "de"}, 400, "language", "unsupported_language"),
        ({"response_format": "xml"}, 400, "response_format", "invalid_value"),
        ({"temperature": "2"}, 400, "temperature", "invalid_value"),
        ({"temperature": "hot"}, 400, "temperature", "invalid_value"),
        ({"timestamp_granularities[]": "word"}, 400, "timestamp_granularities", "invalid_value"),
        (
            {"timestamp_granularities[]": "letter", "response_format": "verbose_json"},
            400,
            "timestamp_granularities",
            "invalid_value",
        ),
        ({"stream": "true", "response_format": "srt"}, 400, "stream", "invalid_value"),
        ({"include[]": "logprobs"}, 400, "include", "unsupported_value"),
        ({"prompt": "x" * 70000}, 400, None, None),
    ],
)
def test_fields_that_are_refused(service, sounds, fields, status, param, code):
    found = error(post(service, sounds[0].read_bytes(), **fields), status)
    assert (found["param"], found["code"]) == (param, code)
    assert found["type"] == "invalid_request_error"


def test_forms_that_are_refused(service, sounds):
    sound = {"file": ("a.wav", sounds[0].read_bytes())}
    for settings, word in (
        ({"data": {"model": "small"}}, "multipart/form-data"),
        ({"json": {"model": "small"}}, "multipart/form-data"),
        ({"files": {"file": (None, b"no name")}, "data": {"model": "small"}}, "file: "),
        ({"files": sound}, "model: "),
        ({"files": [("file", sound["file"])] * 2, "data": {"model": "small"}}, "Too many files"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "boundary"),
    ):
        (answer,) = ask(service, ("POST", TRANSCRIPTIONS, settings))
        assert word in error(answer, 400)["message"]
    for method, path, status in (("GET", TRANSCRIPTIONS, 405), ("GET", "/v1/x", 404)):
        (answer,) = ask(service, (method, path, {}))
        assert path in error(answer, status)["message"]


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


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_a_400_with_the_reason_of_las_transcribe(
    service, transcriber, tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "talk.wav"
    path.write_bytes(BAD[kind])
    source = Source(path.relative_to(tmp_path), path)
    ((_, failure),) = recognise(transcriber, [source], [source.path])
    found = error(post(service, BAD[kind]), 400)
    assert (found["message"], found["param"]) == (failure.reason, "file")
    named = error(post(service, BAD[kind], name="../a\n" + "b" * 999), 400)["message"]
    assert "/dev" not in named and str(tmp_path) not in named and len(named) < 600


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


def test_a_failure_of_the_server_says_nothing_of_it(service, sounds, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("/secret/path is missing")

    monkeypatch.setattr(service.worker.transcriber, "decode", fails)
    found = error(post(service, sounds[0].read_bytes()), 500)
    assert found["type"] == "server_error" and "secret" not in json.dumps(found)
    assert "/secret/path is missing" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr("las.serve.app.transcription", fails)
    found = error(post(service, sounds[0].read_bytes()), 500)
    assert "secret" not in json.dumps(found)


def test_models(service):
    listed, one, none = ask(
        service, ("GET", MODELS, {}), ("GET", f"{MODELS}/small", {}), ("GET", f"{MODELS}/x", {})
    )
    assert listed.json()["object"] == "list"
    assert [model["id"] for model in listed.json()["data"]] == ["small", "whisper-1"]
    assert one.json() == listed.json()["data"][0]
    assert error(none, 404)["code"] == "model_not_found"


def test_keys_are_asked_for_where_they_are_set(service, sounds, tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("first\n\nsecond\n")
    monkeypatch.setenv(keys.VARIABLE, "third")
    service.keys = keys.load(file)
    files = {"file": ("a.wav", sounds[0].read_bytes())}
    for given, status in (
        ({}, 401),
        ({"authorization": "Bearer fourth"}, 401),
        ({"authorization": "Basic first"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Bearer first"}, 200),
        ({"authorization": "bearer second"}, 200),
        ({"authorization": "Bearer third"}, 200),
    ):
        transcribed, listed, metrics, health = ask(
            service,
            (
                "POST",
                TRANSCRIPTIONS,
                {"headers": given, "files": files, "data": {"model": "small"}},
            ),
            ("GET", MODELS, {"headers": given}),
            ("GET", "/metrics", {"headers": given}),
            ("GET", "/healthz", {"headers": given}),
        )
        for answer in (transcribed, listed, metrics):
            assert answer.status_code == status
            if status == 401:
                assert error(answer, 401)["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
        assert health.status_code == 200


def test_keys_that_cannot_be_meant(tmp_path, monkeypatch):
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    assert not keys.load(None)
    empty, spaced = tmp_path / "empty", tmp_path / "spaced"
    empty.write_text("\n \n")
    spaced.write_text("a key\n")
    for path, word in (
        (tmp_path / "none", "cannot be read"),
        (empty, "no key"),
        (spaced, "spaces"),
    ):
        with pytest.raises(LASError, match=word):
            keys.load(path)
    monkeypatch.setenv(keys.VARIABLE, " ")
    with pytest.raises(LASError, match="LAS_API_KEY is empty"):
        keys.load(None)


def test_requests_are_counted(worker, service, sounds, monkeypatch):
    sampled = worker.metrics.registry.get_sample_value
    labels = {"endpoint": "transcriptions", "status": "200"}

    def counts():
        return [
            sampled("las_requests_total", labels) or 0,
            sampled("las_audio_seconds_total"),
            sampled("las_request_seconds_count"),
        ]

    before = counts()
    post(service, sounds[0].read_bytes())
    seconds = soundfile.info(sounds[0]).duration
    assert np.subtract(counts(), before) == pytest.approx([1, seconds, 1])
    (answer,) = ask(service, ("GET", "/metrics", {}))
    assert answer.headers["content-type"].startswith("text/plain")
    assert "las_batch_chunks_bucket" in answer.text and "las_queue_length 0.0" in answer.text
    labels["status"] = "500"
    before = counts()
    monkeypatch.setattr(app, "_transcribe", None)
    error(post(service, sounds[0].read_bytes()), 500)
    assert np.subtract(counts(), before)[0] == 1


def test_monitors_may_ask_by_head(service):
    for answer in ask(service, ("HEAD", "/", {}), ("HEAD", "/healthz", {})):
        assert (answer.status_code, answer.content) == (200, b"")


def test_languages():
    assert languages.name("en-GB") == "english" and languages.name("xyz") == "xyz"
    assert languages.same("German", "de") and not languages.same("de", "en")
    assert len(languages.NAMES) == 99 + 1  # whisper's, with Cantonese
