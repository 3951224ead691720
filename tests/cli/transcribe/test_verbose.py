"""`las transcribe --verbose`: the segments of result files, printed while the audio arrives."""

import io
import json
import os
import sys
import threading

import numpy as np
import pytest
import soundfile
from speech import RATE, run_main, small_model, whistle

from las import standard_streams
from las.transcription.writers.subtitles import timestamp
from tests.cli.files import recording
from tests.cli.transcribe.files import pipe

SECONDS = 120  # until a test gives up


@pytest.fixture(scope="module")
def short_chunks(tmp_path_factory):
    """A model folder with chunks of two seconds."""
    folder = tmp_path_factory.mktemp("short")
    model = small_model()
    model.config = model.config.model_copy(update={"longest_seconds": 2.0})
    model.save_pretrained(folder, {"step": "0", "licence": "none"})
    return folder


@pytest.fixture
def las(monkeypatch, capsys, short_chunks, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *more: run_main(
        monkeypatch, capsys, "transcribe", "--model", short_chunks, "--verbose", *more
    )


def talk():
    file = io.BytesIO()
    sound = np.concatenate([whistle("ABE CAB DECAF", seed) for seed in range(6)])
    soundfile.write(file, sound, RATE, format="WAV")
    return file.getvalue()


def lines(path):
    found = []
    for segment in json.loads(path.read_text())["segments"]:
        start, end = (timestamp(segment[key], hours=False) for key in ("start", "end"))
        found.append(f"[{start} --> {end}]  {segment['text']}")
    return found


def test_segments_are_those_of_the_result(las, tmp_path, monkeypatch):
    (tmp_path / "talk.wav").write_bytes(talk())
    status, out, err = las("talk.wav", "-f", "json")
    expected = lines(tmp_path / "talk.json")
    assert status == 0 and out.splitlines() == expected and len(expected) > 2
    assert err.startswith("1 file, ")
    assert las("talk.wav") == (0, out, "")  # the text would be there twice
    recording(tmp_path / "other.wav")
    named = las("talk.wav", "other.wav")[1].splitlines()
    assert [line for line in named if line.startswith("talk.wav\t")] == [
        f"talk.wav\t{line}" for line in expected
    ]
    assert any(line.startswith("other.wav\t[") for line in named)
    pipe(monkeypatch, talk())
    status, text, segments = las("-", "-f", "srt")
    assert status == 0 and segments.splitlines() == expected and text.startswith("1\n00:00:")
    status, _, err = las("talk.wav", "--n-best", "2")
    assert status == 1 and "leave out --verbose" in err


def test_segments_are_printed_while_standard_input_is_open(las, monkeypatch):
    """The rest of the audio is sent when the first segment is there."""
    reading, writing = os.pipe()
    sink, data = os.fdopen(writing, "wb", buffering=0), talk()
    first, in_time = threading.Event(), []
    put, printed = standard_streams.put, []

    def noted(text):
        printed.append(text)
        first.set()
        put(text)

    def send():
        with sink:
            sink.write(data[: len(data) * 3 // 4])
            in_time.append(first.wait(SECONDS))
            sink.write(data[len(data) * 3 // 4 :])

    monkeypatch.setattr(standard_streams, "put", noted)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(reading, "rb")))
    sender = threading.Thread(target=send)
    sender.start()
    status, out, _ = las("-")
    sender.join()
    assert in_time == [True] and status == 0
    pipe(monkeypatch, data)
    assert las("-") == (0, out, "")
