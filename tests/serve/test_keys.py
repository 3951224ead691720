"""Which requests need a key, and where keys are read."""

import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from las.errors import LASError
from las.serve import keys
from las.serve.app import MODELS, TRANSCRIPTIONS
from tests.serve.client import ask, error


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
