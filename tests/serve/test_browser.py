"""The page in a real browser: what a person sees, hears and types.

It needs playwright and a Chromium: Debian's package ``chromium-headless-shell`` or ``chromium``, or
the path of another in ``CHROMIUM``.
"""

import io
import os
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from speech import RATE, small_model

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

import uvicorn
from playwright.sync_api import sync_playwright

from las.explain import html
from las.explain.explainer import Explainer
from las.explain.figure import level
from las.serve import server
from las.serve.app import create
from las.serve.keys import Keys
from las.serve.service import Service
from las.serve.upload import Limits
from las.transcription.chunking import ChunkingConfig
from las.transcription.segments import transcription
from las.transcription.transcriber import Transcriber
from las.transcription.word_timestamps import timed_words

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
PROBABILITIES = (0.95, 0.7, 0.2)
KEY = "a-key"


def timer(*arguments):
    """Words of all levels, each for a second in turn."""
    words = timed_words(*arguments)
    return [replace(word, probability=PROBABILITIES[int(word.start) % 3]) for word in words]


@pytest.fixture(scope="module")
def transcriber():
    """Of random weights, with which it writes several words in a few seconds."""
    limits = ChunkingConfig(max_seconds=4, target_seconds=2, min_seconds=0.5, overlap_seconds=0.5)
    return Transcriber(small_model(3), torch.device("cpu"), chunking=limits, timer=timer)


@pytest.fixture(scope="module")
def service(worker):
    return Service(worker, ["small"], worker.metrics, Limits(seconds=15.0))


@pytest.fixture(scope="module")
def address(service):
    listening = server.bind("127.0.0.1", 0)
    config = uvicorn.Config(create(service), ws="none", lifespan="off", log_config=None)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    yield server.url(listening).removesuffix("v1")
    running.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser(sounds):
    speech = f"--use-file-for-fake-audio-capture={sounds[2]}"
    arguments = ["--no-sandbox", "--use-fake-ui-for-media-stream"]
    arguments += ["--use-fake-device-for-media-stream", speech]
    with sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address, service):
    """The page, on which nothing may fail unseen."""
    service.keys = Keys([])
    context = browser.new_context(permissions=["microphone"], color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if "Security Policy" in m.text else None)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    assert complaints == []
    assert all(url.startswith((address, "data:", f"blob:{address}")) for url in asked)
    context.close()


def words(page):
    page.locator("#text .word").first.wait_for()
    return page.locator("#text button.word")


def until(page, condition):
    """Wait for a condition; the page's policy forbids what playwright has for it."""
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def test_a_file_becomes_coloured_words_that_can_be_played(page, transcriber, sounds):
    page.set_input_files("#file", sounds[2])
    found = words(page)
    (transcript,) = transcriber.files([sounds[2]])
    expected = transcription(transcript, RATE)
    assert page.locator("#text").inner_text().strip() == expected.text
    kinds = [f"word {level(word.probability)}" for word in expected.words]
    assert [word.get_attribute("class") for word in found.all()] == kinds
    assert sounds[2].name in page.get_by_role("status").inner_text()
    colours = "nodes => nodes.map(node => getComputedStyle(node).color)"
    assert len(set(found.evaluate_all(colours))) == 3

    # By keyboard: from one word to the next, which is played from its time.
    page.evaluate(
        "window.played = []; document.addEventListener('play', e => "
        "window.played.push(e.target.currentTime), true)"
    )
    for index, key in ((0, None), (1, "Enter"), (2, "Space")):
        found.first.focus() if key is None else page.keyboard.press("Tab")
        assert found.nth(index).evaluate("node => node === document.activeElement")
        page.keyboard.press(key or "Enter")
        until(page, f"window.played.length === {index + 1}")
        until(page, "document.querySelector('#player audio').paused")
    for moment, word in zip(page.evaluate("window.played"), expected.words, strict=False):
        assert moment == pytest.approx(word.start, abs=0.05)
    found.nth(1).click()
    until(page, "window.played.length === 4")


def test_attention_is_one_click_away(page, sounds):
    page.set_input_files("#file", sounds[0])
    words(page)
    page.get_by_role("button", name="Show attention").click()
    page.get_by_role("heading", name="Attention", exact=True).wait_for()
    drawing = page.get_by_role("img", name="Spectrogram of")
    box = drawing.bounding_box()
    assert box["width"] > 500 and box["height"] > 200
    assert page.evaluate("document.activeElement.id") == "explanation-title"
    # The spectrogram is drawn, which the policy could have prevented.
    drawn = Image.open(io.BytesIO(page.locator("#parts .stage svg").first.screenshot()))
    assert len(drawn.getcolors(1 << 20)) > 100
    row = page.locator("svg .row").first
    row.hover()
    assert "%" in page.locator("#parts .hint").inner_text()
    sizes = "nodes => new Set(nodes.map(node => getComputedStyle(node).fontSize)).size"
    assert page.locator("#parts svg text").evaluate_all(sizes) > 1
    page.locator("#parts audio").evaluate("audio => audio.play()")  # raises if it cannot
    page.set_input_files("#file", sounds[2])  # another file, of which nothing is explained yet
    page.locator("#explanation").wait_for(state="hidden")


def test_the_page_of_las_explain_alone(browser, transcriber, sounds, tmp_path):
    explainer = Explainer(transcriber.model, transcriber.device)
    path = tmp_path / "page.html"
    path.write_text(html.page(explainer.file(sounds[2])))
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.set_default_timeout(20_000)
    page.goto(path.as_uri())
    page.locator("svg .row").first.hover()
    assert "%" in page.locator(".hint").inner_text()
    page.get_by_title("Play this word").first.click()
    until(page, "document.querySelector('audio').currentTime > 0")
    assert complaints == []
    page.close()


def test_errors_are_in_the_words_of_the_server(page, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("This is no sound.\n" * 20)
    with page.expect_response("**/transcriptions") as answer:
        page.set_input_files("#file", path)
    message = answer.value.json()["error"]["message"]
    page.get_by_role("alert").get_by_text(message).wait_for()
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(20 * RATE), RATE)
    page.set_input_files("#file", long)
    page.get_by_role("alert").get_by_text("longer than 15 s").wait_for()
    assert page.get_by_role("status").inner_text() == ""
    page.route("**/transcriptions", lambda route: route.abort())
    page.set_input_files("#file", path)
    page.get_by_role("alert").get_by_text("The server cannot be reached.").wait_for()


def test_a_file_can_be_dropped(page, sounds):
    page.evaluate(
        """async bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.wav"));
            document.body.dispatchEvent(
                new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        list(sounds[0].read_bytes()),
    )
    page.get_by_role("status").get_by_text("dropped.wav:").wait_for()
    assert words(page).count() > 0


@pytest.mark.parametrize("way", ["pointer", "keyboard"])
def test_holding_the_button_records(page, service, monkeypatch, way):
    submit, sent = service.worker.submit, []
    monkeypatch.setattr(
        service.worker, "submit", lambda path: sent.append(soundfile.read(path)) or submit(path)
    )
    button = page.get_by_role("button", name="Hold to speak")
    if way == "pointer":
        button.hover()
        page.mouse.down()
    else:
        button.focus()
        page.keyboard.down("Space")
    page.get_by_role("status").get_by_text("Recording").wait_for()
    time.sleep(1.2)
    assert button.get_attribute("aria-pressed") == "true"
    if way == "pointer":
        page.mouse.up()
    else:
        page.keyboard.up("Space")
    page.get_by_role("status").get_by_text("recording.wav:").wait_for()
    seconds = float(page.get_by_role("status").inner_text().split()[1])
    assert 0.5 < seconds < 10
    ((samples, rate),) = sent
    assert rate == 16000 and abs(len(samples) / rate - seconds) < 0.1
    assert np.abs(samples).max() > 0.05  # the whistles


def test_a_key_is_asked_for_and_kept_nowhere(page, service, sounds):
    service.keys = Keys([KEY])
    page.reload()
    page.set_input_files("#file", sounds[0])
    field = page.get_by_label("API key")
    field.wait_for()
    page.wait_for_function("document.activeElement === document.getElementById('key')")
    field.fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("incorrect API key").wait_for()
    field.fill(KEY)
    page.keyboard.press("Enter")
    field.wait_for(state="hidden")
    words(page)  # of the file that was refused
    kept = (
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    )
    assert KEY not in page.evaluate(kept)
    page.reload()
    field.wait_for()
    assert field.input_value() == ""


def test_the_microphone_is_off_where_browsers_forbid_it(browser, address):
    page = browser.new_page()
    page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.goto(address)
    assert page.get_by_role("button", name="Hold to speak").is_disabled()
    assert "localhost or over https. Here it is not available." in page.inner_text("#speak-note")
    page.close()


CONTRASTS = """() => {
    const channels = text => text.match(/[\\d.]+/g).map(Number);
    const luminance = text => channels(text).slice(0, 3).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = node => {
        for (let n = node; n; n = n.parentElement) {
            const colour = getComputedStyle(n).backgroundColor;
            if ((channels(colour)[3] ?? 1) === 1) return colour;
        }
    };
    return [...document.querySelectorAll("h1, h2, p, label, button, #text .word, td, th, small")]
        .filter(node => node.checkVisibility() && node.textContent.trim() && !node.disabled)
        .map(node => {
            const pair = [getComputedStyle(node).color, ground(node)].map(luminance);
            const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
            return [node.outerHTML.slice(0, 80), ratio];
        });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(page, sounds, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_input_files("#file", sounds[2])
    words(page)
    page.get_by_role("button", name="Show attention").click()
    page.locator("#parts svg").first.wait_for()
    page.mouse.move(0, 0)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 20
    assert [pair for pair in found if pair[1] < 4.5] == []
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (dark == "rgb(13, 17, 23)") == (scheme == "dark")
