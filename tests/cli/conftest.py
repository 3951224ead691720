"""A model, a manifest, and the command in this process."""

import pytest
from speech import run_main, sentences, small_model, write_manifest


@pytest.fixture(scope="package")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    small_model().save_pretrained(folder, {"step": "0", "licence": "none"})
    return folder


@pytest.fixture(scope="package")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("cli"), sentences(6))


@pytest.fixture
def las(monkeypatch, capsys):
    """Runs a command: exit status, standard output, standard error."""

    def run(*arguments):
        return run_main(monkeypatch, capsys, *arguments)

    return run


@pytest.fixture
def idle(monkeypatch):
    """Encoding of audio fails: errors are found before the work begins."""

    def encode(*_):
        raise AssertionError("audio was encoded")

    monkeypatch.setattr("las.model.las.LAS.encode", encode)
