"""A model, the command, and a folder of recordings."""

import pytest
from speech import run_main

from tests.cli.transcribe.files import recording


@pytest.fixture
def las(monkeypatch, capsys, model, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return run_main(monkeypatch, capsys, "transcribe", "--model", model, *arguments)

    return run


@pytest.fixture
def calls(tmp_path):
    """A folder of recordings in folders; nothing but the audio is to be transcribed."""
    for name in ("calls/x.wav", "calls/monday/x.flac", "calls/monday/y.ogg"):
        recording(tmp_path / name, "FADE CAB" if "y" in name else "ABE CAB")
    (tmp_path / "calls/notes.txt").write_text("not audio")
    return tmp_path / "calls"
