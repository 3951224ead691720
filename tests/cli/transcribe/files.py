"""Recordings for the tests of `las transcribe`, and what is found in folders."""

import io
import sys

import numpy as np
import soundfile
from speech import RATE, whistle


def recording(path, text="ABE CAB", repeats=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.tile(whistle(text), repeats), RATE)
    return path


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def tree_of_calls():
    return ["calls/monday/x.flac", "calls/monday/y.ogg", "calls/notes.txt", "calls/x.wav"]


def pipe(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
