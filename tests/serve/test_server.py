"""`las serve` as a process, used through OpenAI's client; one server for the module."""

import concurrent.futures
import contextlib
import http.client
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech import error_line, run_main, start

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("openai", reason="OpenAI's client is not installed")

import openai

import las
from las.audio import reader
from las.model.folder import bundled
from las.serve import server as serving

SAMPLES = sorted((bundled().parent / "samples").glob("*-*.*"))
KEY = "k3y"
QUEUE = 12
PATIENCE = 300  # seconds until a test gives up


class Server:
    """A process, what it says, and how to ask it."""

    def __init__(self, folder: Path) -> None:
        keys = folder / "keys"
        keys.write_text(KEY + "\n")
        arguments = ["--greedy", "--port", 0, "--api-key-file", keys, "--name", "whisper-1"]
        arguments += ["--max-queue", QUEUE, "--max-megabytes", 2, "--max-seconds", 100]
        self.process = start("serve", *arguments)
        line = self.process.stderr.readline()
        found = re.fullmatch(r"serving whisper-1 on (http://(127\.0\.0\.1):(\d+)/v1)\n", line)
        assert found, line + self.process.stderr.read()
        self.url, self.host, self.port = found[1], found[2], int(found[3])
        self.client = openai.OpenAI(api_key=KEY, base_url=self.url, max_retries=0, timeout=PATIENCE)

    def transcribe(self, path, **settings):
        create = self.client.audio.transcriptions.create
        return create(model="whisper-1", file=path, **settings)

    def half_sent(self, path):
        """A request of which the server has the head and half of the body; call for the answer."""
        head = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--x\r\n'
        head += b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        body = head + path.read_bytes() + b"\r\n--x--\r\n"
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        connection.putrequest("POST", "/v1/audio/transcriptions")
        connection.putheader("Authorization", f"Bearer {KEY}")
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[: len(body) // 2])

        def finish():
            connection.send(body[len(body) // 2 :])
            return connection.getresponse()

        return finish

    def get(self, path):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
        return connection.getresponse()

    def value(self, name):
        text = self.get("/metrics").read().decode()
        return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])

    def accepted(self):
        """Requests that were accepted so far."""
        text = self.get("/metrics").read().decode()
        names = "las_queue_length|las_request_seconds_count"
        return sum(map(float, re.findall(rf"^(?:{names}) (\S+)$", text, re.MULTILINE)))

    def wait(self, holds):
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.fixture(scope="module")
def recognizer():
    return las.load(search={})


def test_openai_s_client_has_its_types(server, recognizer):
    expected = recognizer.transcribe(SAMPLES[0])
    assert [model.id for model in server.client.models.list()] == ["whisper-1"]
    assert server.client.models.retrieve("whisper-1").object == "model"
    assert server.transcribe(SAMPLES[0]).text == expected.text
    for kind in ("text", "srt", "vtt"):
        assert expected.text.split()[0] in server.transcribe(SAMPLES[0], response_format=kind)
    found = server.transcribe(
        SAMPLES[0],
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="en",
        prompt="weather",
        temperature=0,
    )
    assert (found.text, found.language) == (expected.text, "english")
    assert found.duration == pytest.approx(expected.duration)
    assert [(w.word, w.start, w.end) for w in found.words] == [
        (w.word, w.start, w.end) for w in expected.words
    ]
    assert [(s.text, s.start, s.no_speech_prob) for s in found.segments] == [
        (s.text, s.start, 0.0) for s in expected.segments
    ]
    *deltas, done = server.transcribe(SAMPLES[0], stream=True)
    assert "".join(event.delta for event in deltas) == done.text == expected.text
    assert {event.type for event in deltas} == {"transcript.text.delta"} and deltas
    assert done.type == "transcript.text.done"


def test_openai_s_client_has_its_errors(server, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("no audio\n" * 99)
    large, long = tmp_path / "large.wav", tmp_path / "long.flac"
    soundfile.write(large, np.zeros(3_000_000), 16000)
    soundfile.write(long, np.zeros(101 * 16000), 16000)
    with pytest.raises(openai.BadRequestError) as bad:
        server.transcribe(text)
    assert (bad.value.param, bad.value.code) == ("file", "invalid_audio")
    assert bad.value.body["message"].startswith("text.wav: not an audio file")
    with pytest.raises(openai.NotFoundError):
        server.client.audio.transcriptions.create(model="x", file=SAMPLES[0])
    with pytest.raises(openai.AuthenticationError):
        server.client.with_options(api_key="wrong").models.list()
    for path, code in ((large, "file_too_large"), (long, "audio_too_long")):
        with pytest.raises(openai.APIStatusError) as refused:
            server.transcribe(path)
        assert (refused.value.status_code, refused.value.code) == (413, code)


def test_users_at_once_get_the_texts_they_get_alone(server, recognizer):
    paths = SAMPLES[:4] * 3
    with concurrent.futures.ThreadPoolExecutor(QUEUE) as pool:
        found = list(pool.map(lambda path: server.transcribe(path).text, paths))
    expected = {path: recognizer.transcribe(path).text for path in SAMPLES[:4]}
    assert found == [expected[path] for path in paths]


def test_a_full_queue(server):
    unfinished = [server.half_sent(SAMPLES[0]) for _ in range(QUEUE)]
    server.wait(lambda: server.value("las_queue_length") == QUEUE)
    with pytest.raises(openai.RateLimitError) as refused:
        server.transcribe(SAMPLES[0])
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert {finish().status for finish in unfinished} == {200}
    server.wait(lambda: server.value("las_queue_length") == 0)


def test_an_end_under_load_loses_nothing(server, recognizer, tmp_path):
    """The last test of the server: SIGTERM comes when the queue is full."""
    talk = tmp_path / "talk.flac"
    samples = np.concatenate([reader.load(path) for path in SAMPLES[:8]])
    soundfile.write(talk, samples, reader.SAMPLE_RATE)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(server.transcribe(talk).text))
        for _ in range(QUEUE - 1)
    ]
    before = server.accepted()
    unfinished = server.half_sent(SAMPLES[0])  # so that the server is there until below
    for thread in threads:
        thread.start()
    server.wait(lambda: server.accepted() == before + QUEUE)
    server.process.send_signal(signal.SIGTERM)
    server.wait(lambda: server.get("/healthz").status == 503)
    with pytest.raises(openai.InternalServerError) as refused:
        server.transcribe(SAMPLES[0])
    assert refused.value.status_code == 503 and "retry-after" in refused.value.response.headers
    answer = unfinished()
    assert answer.status == 200 and recognizer.transcribe(SAMPLES[0]).text in answer.read().decode()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == [recognizer.transcribe(talk).text] * len(threads)
    assert server.process.wait(PATIENCE) == 0
    assert server.process.stdout.read() == ""
    said = server.process.stderr.read()
    assert re.fullmatch(r"stopping: \d+ requests are finished first\n", said)


def test_an_address_that_is_taken(monkeypatch, capsys):
    with contextlib.closing(serving.bind("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = run_main(monkeypatch, capsys, "serve", "--port", port)
    assert status == 1 and out == ""
    what = "Address already in use"
    assert error_line(err).startswith(f"error: 127.0.0.1:{port}: cannot be listened on ({what}); ")


def test_addresses():
    for host, shown, loopback in (("127.0.0.1", "127.0.0.1", True), ("0.0.0.0", "0.0.0.0", False)):
        with contextlib.closing(serving.bind(host, 0)) as listening:
            assert serving.url(listening) == f"http://{shown}:{listening.getsockname()[1]}/v1"
            assert serving.is_loopback(listening) == loopback
