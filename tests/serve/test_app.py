"""The endpoints, without a socket: what they answer, and what they refuse."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import soundfile
from speech import RATE

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from las.cli.transcribe.inputs import Source
from las.cli.transcribe.recognition import recognise
from las.serve import app, languages
from las.serve.app import MODELS, TRANSCRIPTIONS
from las.transcription import writers
from las.transcription.segments import transcription
from tests.serve.client import BAD, ask, error, post


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
