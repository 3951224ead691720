"""Shards of a server: fetched once, within a limit of space, and whatever opens them."""

import functools
import http.server
import threading

import pytest

from las.config import DataConfig
from las.data.shards import files
from las.data.shards.files import ShardFiles, is_remote
from las.data.shards.index import INDEX, cuts_name, recording_name
from las.errors import LASError


@pytest.fixture
def server(shards):
    """Serves the folder above the shards; its address and the names that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path.rsplit("/", 1)[-1])

    handler = functools.partial(Handler, directory=str(shards.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/part.shards", asked
        found.shutdown()


def ids(found):
    return [batch.ids for batch in found]


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_of_a_server(shards, server, read, tmp_path, workers):
    address, asked = server
    found = read(address, cache=str(tmp_path), workers=workers)
    assert ids(found) == ids(read(shards))
    assert len(asked) == len(set(asked)) == 2 + 2 * 4  # each file once, for all processes
    assert ids(read(address, cache=str(tmp_path))) == ids(found)
    assert len(asked) == 2 + 2 * 4 + 1  # the index again


def test_a_command_that_prints_files(shards, read, tmp_path):
    found = read(f"pipe:cat {shards}/{{}}", cache=str(tmp_path))
    assert ids(found) == ids(read(shards))


def test_local_and_remote_corpora_together(shards, read, tmp_path):
    both = [shards, f"pipe:cat {shards}/{{}}"]
    found = read(both, cache=str(tmp_path))
    assert sum(len(batch.ids) for batch in found) == 2 * 22


def test_copies_obey_the_limit(shards, tmp_path):
    sizes = {path.name: path.stat().st_size for path in shards.iterdir()}
    names = [recording_name(shard) for shard in range(4)]
    limit = (sizes[names[0]] + sizes[names[1]] + sizes[names[2]]) / 1e9
    config = DataConfig(cache=str(tmp_path), cache_gigabytes=limit)
    remote = ShardFiles(f"pipe:cat {shards}/{{}}", config)
    remote.index(INDEX)
    kept = remote.open(names[0], sizes[names[0]])
    for name in names[1:]:
        remote.open(name, sizes[name]).close()
        assert sum(p.stat().st_size for p in tmp_path.rglob(files._COPY)) <= limit * 1e9
        assert len(list(tmp_path.glob("*/recording*"))) <= 3
    assert kept.read() == (shards / names[0]).read_bytes()  # although it is deleted
    kept.close()
    assert remote.open(names[0], sizes[names[0]]).read() == (shards / names[0]).read_bytes()


def test_other_shards_at_an_address_are_not_taken_for_the_old_ones(shards, tmp_path):
    place = tmp_path / "remote"
    place.mkdir()
    config = DataConfig(cache=str(tmp_path / "cache"))
    for content in (b"one", b"two"):
        (place / INDEX).write_bytes(content)
        (place / cuts_name(0)).write_bytes(content)
        remote = ShardFiles(f"pipe:cat {place}/{{}}", config)
        remote.index(INDEX)
        with remote.open(cuts_name(0), 3) as file:
            assert file.read() == content


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("http://127.0.0.1:9/x.shards", "refused"),
        ("pipe:cat /nowhere/{}", ""),
        ("s3://bucket/x.shards", "smart_open"),
    ],
)
def test_what_cannot_be_fetched(origin, words, tmp_path, monkeypatch):
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    with pytest.raises(LASError, match="cannot be fetched") as caught:
        ShardFiles(origin, DataConfig(cache=str(tmp_path))).index(INDEX)
    line = str(caught.value)
    assert words in line and len(line.splitlines()) == 1 and INDEX in line.split(": cannot")[0]


def test_a_short_answer_is_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    flag = tmp_path / "flag"
    command = f"pipe:test -e {flag} && echo whole || (touch {flag}; echo part) # {{}}"
    with ShardFiles(command, DataConfig(cache=str(tmp_path / "cache"))).open("a", 6) as file:
        assert file.read() == b"whole\n"


def test_what_is_remote():
    assert is_remote("https://host/a.shards") and is_remote("pipe:cat {}")
    assert not is_remote("/data/a.shards") and not is_remote("a.shards")
