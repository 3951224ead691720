"""The same inputs give the same blocks, and every file is in one of them."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from las.bulk.blocks import Files, digest, of_files, of_manifest, shards
from las.errors import LASError

names = st.lists(st.text("abz/.é", min_size=1, max_size=6).map(Path), unique=True, max_size=8)


@settings(max_examples=30)
@given(names, st.integers(1, 5), st.randoms(use_true_random=False))
def test_files_are_grouped_by_the_order_of_their_paths(paths, size, rng: random.Random):
    blocks = of_files(paths, size)
    shuffled = list(paths)
    rng.shuffle(shuffled)
    assert of_files(shuffled, size) == blocks
    listed = [name for block in blocks for name in block.names]
    assert sorted(listed) == sorted(map(str, paths))
    assert [name.encode() for name in listed] == sorted(name.encode() for name in listed)
    assert all(len(block.names) == size for block in blocks[:-1])
    assert [item.path for block in blocks for item in block.items()] == listed
    singles = [single for block in blocks for single in block.singles()]
    assert singles == [Files((name,)) for name in listed]


@settings(max_examples=30)
@given(names, names, st.integers(1, 5))
def test_other_blocks_have_another_digest(one, two, size):
    first, second = of_files(one, size), of_files(two, size)
    assert (digest(first) == digest(second)) == (first == second)


def test_names_may_be_any_bytes(tmp_path):
    (block,) = of_files([Path("\udcff.wav"), Path("a.wav")], 2)
    assert block.names == ("a.wav", "\udcff.wav") and digest([block])


def test_only_a_manifest_with_its_recordings_is_a_shard(tmp_path):
    for name in ("cuts.000000.jsonl.gz", "cuts.000001.jsonl.gz", "recording.000001.tar"):
        (tmp_path / name).touch()
    (shard,) = shards(tmp_path)
    assert shard.name == "cuts.000001.jsonl.gz"
    (block,) = of_manifest(shard, 1)
    assert block.path == str(tmp_path / "recording.000001.tar")
    before = digest([block])
    (tmp_path / "recording.000001.tar").write_bytes(b"others")
    assert digest([block]) != before


def test_shards_whose_preparation_was_interrupted_are_refused(tmp_path):
    for name in ("cuts.000000.jsonl.gz", "recording.000000.tar", "cuts.note.json"):
        (tmp_path / name).touch()
    with pytest.raises(LASError, match=f"^{tmp_path}: not all of the shards; run `las prepare"):
        shards(tmp_path)
    (tmp_path / "cuts.index.json").touch()
    assert len(shards(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "says"), [("", "empty"), ("a text\n", "not a manifest"), ('{"id": "x"}\n', "manifest")]
)
def test_what_is_no_manifest_is_one_line(tmp_path, text, says):
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(LASError, match=says) as caught:
        of_manifest(path, 1)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
