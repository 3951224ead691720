"""Preparing shards: what is skipped, what is left after a kill, and that it continues."""

import json

import pytest
from speech import sentences, write_folder

from las.data import corpora
from las.data.shards import preparation
from las.data.shards.index import INDEX
from las.data.shards.preparation import prepare_shards, unfinished
from las.errors import LASError
from las.storage.atomic import locked


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def corpus(tmp_path):
    folder = write_folder(tmp_path / "mine", [*sentences(7), "FADE 7", "", "CAB"])
    (folder / "s0" / "notes.md").write_text("no utterance")
    return folder


def listed(folder):
    (found,) = corpora.folder(folder).values()
    return found


def test_the_same_is_counted_as_for_a_manifest(corpus, tmp_path):
    found = prepare_shards("mine", listed(corpus), tmp_path / "a", size=3)
    expected = corpora.prepare("mine", listed(corpus), tmp_path / "b")
    for name in ("utterances", "speakers", "unaccented", "skipped"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.seconds == pytest.approx(expected.seconds)
    texts = [(tmp_path / side / "mine.skipped.jsonl").read_text() for side in "ab"]
    assert texts[0] == texts[1] and len(texts[0].splitlines()) == 3
    index = json.loads((found.manifest / INDEX).read_text())
    assert sum(index["utterances"]) == found.utterances == 8
    assert sum(index["seconds"]) == pytest.approx(found.seconds)
    assert not list(found.manifest.glob("*note*")) and not list(found.manifest.glob(".*"))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_preparation_continues(corpus, tmp_path, monkeypatch, after):
    whole = content(prepare_shards("mine", listed(corpus), tmp_path / "a", size=3).manifest)
    prepare = preparation._prepare_block
    blocks, lines = [], []

    def interrupted(note, *arguments):
        if len(blocks) == after:
            raise KeyboardInterrupt
        blocks.append(note)
        prepare(note, *arguments)

    def counted(note, *arguments):
        blocks.append(note)
        prepare(note, *arguments)

    monkeypatch.setattr(preparation, "_prepare_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_shards("mine", listed(corpus), tmp_path / "b", size=3)
    folder = tmp_path / "b" / "mine.shards"
    assert not (folder / INDEX).exists() and unfinished(folder)
    (folder / ".partial-1.tar").write_text("of a killed process")
    monkeypatch.setattr(preparation, "_prepare_block", counted)
    found = prepare_shards("mine", listed(corpus), tmp_path / "b", size=3, log=lines.append)
    assert not unfinished(folder)
    assert len(blocks) == 4 and found.utterances == 8 and len(found.skipped) == 3
    assert content(folder) == whole
    assert len(lines) == (after > 0)
    assert not lines or f"continues after the {after} shards" in lines[0]


@pytest.mark.parametrize("change", ["text", "option", "archive"])
def test_what_has_changed_is_prepared_again(corpus, tmp_path, monkeypatch, change):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(preparation, "write_index", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_shards("mine", listed(corpus), tmp_path / "out", size=3)
    folder = tmp_path / "out" / "mine.shards"
    options = {"size": 3}
    if change == "text":
        (corpus / "s0" / "u000.txt").write_text("BEAD")
    elif change == "option":
        options["flac"] = True
    else:
        path = folder / "recording.000000.tar"
        path.write_bytes(path.read_bytes()[:-1])
    lines = []
    prepare_shards("mine", listed(corpus), tmp_path / "out", **options, log=lines.append)
    assert len(lines) == 1 and "starts over" in lines[0]
    again = prepare_shards("mine", listed(corpus), tmp_path / "again", **options).manifest
    assert content(folder) == content(again)


def test_fewer_shards_replace_more(corpus, tmp_path):
    prepare_shards("mine", listed(corpus), tmp_path, size=2)
    folder = prepare_shards("mine", listed(corpus), tmp_path, size=100).manifest
    assert sorted(path.name for path in folder.iterdir()) == [
        "cuts.000000.jsonl.gz",
        "cuts.index.json",
        "cuts.records.bin",
        "recording.000000.tar",
    ]


def test_errors(corpus, tmp_path):
    with pytest.raises(LASError, match=r"u008\.wav: empty text"):
        prepare_shards("mine", listed(corpus), tmp_path, size=3, strict=True)
    assert not (tmp_path / "mine.shards" / INDEX).exists()
    with locked(tmp_path / "mine.shards") as alone, pytest.raises(LASError, match="wait for it"):
        assert alone
        prepare_shards("mine", listed(corpus), tmp_path)
    with pytest.raises(LASError, match="no usable utterance among 1"):
        bad = [item for item in listed(corpus) if "u007" in str(item.path)]
        prepare_shards("bad", bad, tmp_path)
