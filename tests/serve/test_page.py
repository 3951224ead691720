"""The files of the page, explanations of uploads, and the page's functions; no browser."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import pytest
import soundfile
from speech import RATE

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import las.explain
from las.audio import reader
from las.explain import figure, html
from las.explain.explainer import Explainer
from las.serve import assets, explaining
from las.serve.app import EXPLANATIONS
from las.serve.keys import Keys
from las.serve.service import Service
from las.serve.upload import Limits
from tests.serve.client import BAD, ask, error

PAGE = Path(assets.__file__).parent / "page"


@pytest.fixture
def service(worker):
    limits = Limits(megabytes=0.5, seconds=15.0, queue=3)
    return Service(worker, ["small"], worker.metrics, limits, Keys(["secret"]))


def explain(service, content, model="small", **headers):
    settings = {"files": {"file": ("a b.wav", content)}, "data": {"model": model}}
    headers = headers or {"authorization": "Bearer secret"}
    (answer,) = ask(service, ("POST", EXPLANATIONS, {**settings, "headers": headers}))
    return answer


class Tags(HTMLParser):
    """The tags of a page, each with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing_but_its_own_files(service):
    (index,) = ask(service, ("GET", "/", {}))  # no key
    names = []
    for tag, values in Tags(index.text).found:
        assert tag != "style" and not any(name.startswith(("on", "style")) for name in values)
        assert tag != "script" or "src" in values
        for link in filter(None, (values.get("src"), values.get("href"))):
            if link != "data:,":
                names.append(link)
    files = ask(service, *(("GET", urljoin("/", name), {}) for name in names))
    assert len(files) == 5
    for name, answer in zip(["index.html", *names], [index, *files], strict=True):
        assert answer.status_code == 200, name
        kind = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
        assert answer.headers["content-type"].startswith(kind[name.rpartition(".")[2]])
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; ") and "unsafe" not in policy
        assert re.findall(r"https?:|//[a-z]+\.|@import|url\(", answer.text) == []


def test_what_the_page_names_is_on_it():
    tags = Tags((PAGE / "index.html").read_text()).found
    ids = [values["id"] for _, values in tags if "id" in values]
    assert len(ids) == len(set(ids))
    named = set(re.findall(r'byId\("([\w-]+)"\)', (PAGE / "page.js").read_text()))
    for _, values in tags:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            named |= {values[name]} if name in values else set()
    assert len(named) > 15 and named <= set(ids)
    labelled = {values["for"] for tag, values in tags if tag == "label"}
    assert {values["id"] for tag, values in tags if tag == "input"} == labelled


def test_an_explanation_is_the_page_of_las_explain(service, transcriber, sounds):
    answer = explain(service, sounds[2].read_bytes())
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    waveform = np.concatenate(list(reader.blocks(sounds[2], transcriber.rate)))
    explainer = Explainer(transcriber.model, transcriber.device, name="small")
    assert answer.text == html.page(explainer.array(waveform, "a b.wav"))
    # It is shown on a page whose policy forbids both.
    tags = Tags(answer.text).found
    assert not any("style" in v or any(n.startswith("on") for n in v) for _, v in tags)


def test_of_a_long_file_the_beginning_is_explained(service, transcriber, sounds, monkeypatch):
    monkeypatch.setattr(explaining, "SECONDS", 0.75)
    page = explain(service, sounds[2].read_bytes()).text
    assert "Only the first 0.75 s of the file are explained." in page and "<audio" in page


def test_explanations_have_the_limits_and_the_key_of_transcriptions(service, sounds):
    content = sounds[0].read_bytes()
    long = io.BytesIO()
    soundfile.write(long, np.zeros(20 * RATE), RATE, format="WAV")
    assert error(explain(service, content, authorization="Bearer x"), 401)
    assert error(explain(service, content, model="other"), 404)["code"] == "model_not_found"
    assert error(explain(service, bytes(600_000)), 413)["code"] == "file_too_large"
    assert error(explain(service, long.getvalue()), 413)["code"] == "audio_too_long"
    for kind, content in BAD.items():
        message = error(explain(service, content), 400)["message"]
        assert message.startswith("a b.wav: "), kind
    service.stopping = True
    assert error(explain(service, content), 503)["code"] == "server_stopping"
    assert service.running == 0


def test_explanations_need_an_extra(service, sounds, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("html", "svg", "figure"):
        monkeypatch.delitem(sys.modules, f"las.explain.{name}")
        monkeypatch.delattr(las.explain, name)
    found = error(explain(service, sounds[0].read_bytes()), 501)
    assert "pip install 'listen-attend-spell[explain]'" in found["message"]


def test_a_failed_explanation_is_the_servers_fault(service, sounds, monkeypatch, capsys):
    monkeypatch.setattr(Explainer, "array", lambda *_: 1 / 0)
    assert error(explain(service, sounds[0].read_bytes()), 500)["type"] == "server_error"
    assert "ZeroDivisionError" in capsys.readouterr().err
    monkeypatch.undo()
    assert explain(service, sounds[0].read_bytes()).status_code == 200  # the worker goes on


PROBABILITIES = [0.0, 0.3, 0.5999, 0.6, 0.8999, 0.9, 1.0]
PROGRAM = """
const fs = require("fs"), vm = require("vm");
vm.runInThisContext(fs.readFileSync(process.argv[1], "utf8"));
const { samples, probabilities } = JSON.parse(process.argv[2]);
const file = Buffer.from(wav(Float32Array.from(samples), 16000)).toString("base64");
console.log(JSON.stringify({ levels: probabilities.map(level), file }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_levels_and_recordings_of_the_page():
    samples = [0.0, 0.25, -0.25, 1.0, -1.0, 1.5, -2.0]
    given = json.dumps({"samples": samples, "probabilities": PROBABILITIES})
    done = subprocess.run(
        ["node", "-e", PROGRAM, PAGE / "speech.js", given],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["levels"] == [figure.level(p) for p in PROBABILITIES]
    content = io.BytesIO(base64.b64decode(found["file"]))
    written, rate = soundfile.read(content)
    assert rate == 16000
    assert written == pytest.approx(np.clip(samples, -1, 1), abs=1 / 16384)
