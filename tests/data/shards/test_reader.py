"""Batches of shards have the bits of the files; what is damaged is named."""

import gzip
import json
import shutil
from itertools import chain

import pytest
import torch
from lhotse import CutSet

from las.config import DataConfig
from las.data.dataset import Batch
from las.data.manifests import read_manifest
from las.data.shards.index import INDEX, RECORDS, cuts_name, recording_name
from las.data.shards.preparation import prepare_shards
from las.data.shards.reader import ShardSet, is_sharded
from las.errors import LASError
from las.text.characters import Characters


def utterances(found):
    """Text, tokens and valid samples by id."""
    assert all(isinstance(batch, Batch) for batch in found), found
    return {
        id: (text, row[:length].numpy().tobytes(), tokens[:count].tolist())
        for batch in found
        for id, text, row, length, tokens, count in zip(
            batch.ids,
            batch.texts,
            batch.waveforms,
            batch.samples.tolist(),
            batch.tokens,
            batch.token_lengths.tolist(),
            strict=True,
        )
    }


def same(a, b):
    return len(a) == len(b) and all(
        x.ids == y.ids and torch.equal(x.waveforms, y.waveforms) and torch.equal(x.tokens, y.tokens)
        for x, y in zip(a, b, strict=True)
    )


EVERYTHING = {"noise": 0.5, "mp3": 0.3, "rooms": 0.2, "volume": 0.3, "silence": 0.2}


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"speeds": [0.9]}])
def test_utterances_are_those_of_the_manifest_to_the_bit(shards, manifest, read, changes):
    found = utterances(read(shards, **changes))
    assert found == utterances(read(manifest, cuts=read_manifest(manifest), **changes))
    assert len(found) == 22


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_gives_the_tail(shards, read, workers):
    changes = {"speeds": [0.9, 1.0, 1.1], "joins": 0.5, "silence": 0.2, "noise": 0.3}
    whole = read(shards, **changes)
    assert 11 <= sum(len(batch.ids) for batch in whole) < 22
    for skip in (1, len(whole) - 1):
        assert same(read(shards, skip=skip, workers=workers, **changes), whole[skip:])
    assert not same(read(shards, epoch=2, **changes), whole)


def test_processes_share_the_epoch(shards, read):
    shares = [read(shards, rank=rank, world=3) for rank in range(3)]
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1
    ids = list(chain.from_iterable(batch.ids for share in shares for batch in share))
    assert (
        len({id for id in ids if "_copy" not in id})
        == 22
        == len(ids) - sum("_copy" in id for id in ids)
    )


def test_joined_utterances_hold_the_parts(shards, read):
    plain = utterances(read(shards))
    joined = utterances(read(shards, joins=1.0))
    assert len(joined) < 22
    words = sorted(chain.from_iterable(text.split() for text, *_ in joined.values()))
    assert words == sorted(chain.from_iterable(text.split() for text, *_ in plain.values()))


def test_weights_repeat_a_corpus_under_other_names(shards, read):
    once = set(utterances(read(shards)))
    twice = set(utterances(read(shards, weights=[2.0])))
    assert twice == once | {f"{id}_copy1" for id in once}
    assert len(utterances(read(shards, weights=[0.5]))) in range(8, 15)


def test_lhotse_reads_the_folder(shards, manifest):
    found = {cut.id: cut for cut in CutSet.from_shar(in_dir=shards)}
    expected = {cut.id: cut for cut in read_manifest(manifest)}
    assert found.keys() == expected.keys()
    for id, cut in found.items():
        assert cut.supervisions == expected[id].supervisions
        assert (cut.load_audio() == expected[id].load_audio()).all()


def test_the_first_look_reads_the_index_and_one_shard(shards):
    config = DataConfig(train=str(shards), max_seconds=1.4)
    usable = ShardSet(config, Characters(), lambda seconds: 10**6).trainable()
    assert usable.size + usable.too_long == 22 and 0 < usable.too_long < 22
    assert 1.0 < usable.longest <= 1.4
    with pytest.raises(LASError, match="no utterance is left to train on"):
        ShardSet(
            config.model_copy(update={"max_seconds": 0.1}), Characters(), lambda seconds: 10**6
        ).trainable()


def test_what_ctc_cannot_align_is_left_out(shards, manifest, read, monkeypatch):
    monkeypatch.setattr("las.data.shards.reader.refuse_dense", lambda *_: None)
    lengths = {cut.id: cut.duration for cut in read_manifest(manifest)}
    middle = sorted(lengths.values())[11]

    def frames(seconds):
        return 10**6 if seconds < middle else 0

    for changes in ({}, {"batch_utterances": 1}):
        found = read(shards, frames=frames, **changes)
        assert {id for batch in found for id in batch.ids} == {
            id for id, length in lengths.items() if length < middle
        }
        assert sum(batch.left_out for batch in found) == 11 or changes
    monkeypatch.undo()
    with pytest.raises(LASError, match=r"part\.shards: \d of 6 utterances have more characters"):
        read(shards, frames=frames)


# --- damage ---------------------------------------------------------------------------------


def refused(read, folder, **changes):
    """The line about a damaged folder."""
    try:
        found = [batch for batch in read(folder, **changes) if isinstance(batch, LASError)]
    except LASError as error:
        found = [error]
    assert found and all(len(str(error).splitlines()) == 1 for error in found)
    return str(found[0])


@pytest.fixture
def copied(shards, tmp_path):
    return shutil.copytree(shards, tmp_path / "part.shards")


@pytest.mark.parametrize("name", [INDEX, RECORDS, cuts_name(2), recording_name(2), cuts_name(0)])
def test_a_missing_file(copied, read, name):
    (copied / name).unlink()
    found = refused(read, copied)
    assert (str(copied) if name == INDEX else str(copied / name)) in found
    assert "las prepare ... --shards" in found


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_archive(copied, read, workers):
    path = copied / recording_name(2)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-5000])
    found = refused(read, copied, workers=workers)
    assert f"{path}: {size - 5000} bytes, and the index says {size}; copy it again" in found


def change_cuts(path, change):
    """Change a shard's cuts without changing the size of their file."""
    lines = gzip.decompress(path.read_bytes()).splitlines()
    cuts = [json.loads(line) for line in lines]
    for cut in cuts:
        change(cut)
    data = "".join(json.dumps(cut) + "\n" for cut in cuts).encode()
    folder, name = path.parent, path.name
    path.write_bytes(gzip.compress(data))
    index = json.loads((folder / INDEX).read_text())
    index["cuts_bytes"][int(name.split(".")[1])] = path.stat().st_size
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cut: cut["supervisions"][0].pop("text"), "not a manifest of utterances"),
        (lambda cut: cut["supervisions"][0].update(text="ABÉ"), "are not in the alphabet"),
        (lambda cut: cut.pop("type"), "damaged"),
        (lambda cut: cut["recording"].update(sampling_rate=16000), "has changed"),
    ],
)
def test_a_damaged_shard(copied, read, change, words):
    path = copied / cuts_name(2)
    change_cuts(path, change)
    found = refused(read, copied)
    assert words in found
    assert "las prepare" in found or "prepare the data again" in found
    assert str(path) in found or str(copied / recording_name(2)) in found


def test_damaged_audio(copied, read):
    path = copied / recording_name(1)
    data = bytearray(path.read_bytes())
    for start in range(512, len(data), 16384):
        data[start : start + 2000] = b"text" * 500
    path.write_bytes(data)
    found = refused(read, copied)
    assert (
        found.startswith(f"{path}: the audio of utterance ") and "prepare the data again" in found
    )


def test_an_index_of_another_version(copied, read):
    index = json.loads((copied / INDEX).read_text())
    (copied / INDEX).write_text(json.dumps(index | {"format": "listen-attend-spell/shards/9"}))
    assert "its format is listen-attend-spell/shards/9" in refused(read, copied)
    (copied / INDEX).write_text("[]")
    assert "not an index of shards" in refused(read, copied)


def test_what_counts_as_shards(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "renamed")
    assert is_sharded(str(tmp_path / "renamed")) and not is_sharded(str(tmp_path))
    with pytest.raises(LASError, match=r"part\.shards: shards, not a manifest; only data\.train"):
        read_manifest(shards)
    assert is_sharded("data/a.shards") and is_sharded("data/a.shards/")
    assert is_sharded(["x", "y"]) and is_sharded("https://host/x") and is_sharded("pipe:cat {}")
    assert not is_sharded("data/a.jsonl.gz") and not is_sharded("")


def test_flac_has_the_same_bits(items, manifest, read, tmp_path):
    folder = prepare_shards("part", items, tmp_path, size=9, flac=True).manifest
    found = utterances(read(folder))
    assert found == utterances(read(manifest, cuts=read_manifest(manifest)))
    raw = sum(item.path.stat().st_size for item in items if not item.beside)
    assert sum(path.stat().st_size for path in folder.glob("*.tar")) < raw
