"""Manifests: damage is named, and what cannot be trained on is left out."""

import gzip
import json

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, RecordingSet, SupervisionSet
from speech import RATE, sentences, write_manifest

from las.config import DataConfig
from las.data import corpora
from las.data.manifests import check_alphabet, read_manifest, trainable
from las.errors import LASError
from las.text.characters import Characters

TEXT = Characters()


COUNT = 41


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("data"), sentences(COUNT))


def refused(path, *words):
    with pytest.raises(LASError) as caught:
        cuts = read_manifest(path)
        check_alphabet(cuts, TEXT, str(path))
    message = str(caught.value)
    assert str(path) in message and len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_manifests_that_are_none(tmp_path, manifest):
    refused(tmp_path / "missing.jsonl.gz", "no such manifest", "las prepare")
    refused(tmp_path, "no such manifest")
    for name, data in {
        "text.jsonl": b"just a text\n",
        "text.jsonl.gz": b"just a text\n",
        "empty.jsonl": b"",
        "blank.jsonl": b"\n",
        "numbers.jsonl": b"1\n2\n",
        "object.jsonl": b'{"audio": "a.wav", "text": "A"}\n',
        "nul.jsonl": b"\0" * 100,
        "cut.jsonl.gz": manifest.read_bytes()[:-200],
    }.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name)


def test_manifests_of_something_else(tmp_path, manifest):
    cuts = CutSet.from_jsonl(manifest)
    RecordingSet.from_recordings(c.recording for c in cuts).to_file(tmp_path / "r.jsonl.gz")
    SupervisionSet.from_segments(c.supervisions[0] for c in cuts).to_file(tmp_path / "s.jsonl.gz")
    CutSet.from_cuts(c.drop_supervisions() for c in cuts).to_file(tmp_path / "c.jsonl.gz")
    for name in ("r", "s", "c"):
        refused(tmp_path / f"{name}.jsonl.gz", "not a manifest of utterances")


def test_a_manifest_damaged_further_down(tmp_path, manifest):
    lines = gzip.decompress(manifest.read_bytes()).decode().splitlines()
    untold = json.loads(lines[3])
    untold["supervisions"][0].pop("text")
    for name, line in {"broken": lines[3][:50], "untold": json.dumps(untold)}.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join([*lines[:3], line, *lines[4:]]) + "\n")
        refused(path)


def test_characters_outside_the_alphabet_of_the_model(manifest):
    with pytest.raises(LASError, match="'F' outside the alphabet"):
        check_alphabet(read_manifest(manifest), Characters(" ABCDE"), "train")
    check_alphabet(read_manifest(manifest), TEXT, "train")


def test_long_and_dense_utterances_are_counted_and_left_out(tmp_path):
    texts = ["ABE"] * 150 + ["FADE DECAF " * 3, "ACED" * 40]
    (items,) = corpora.folder(_recorded(tmp_path, texts)).values()
    manifest = corpora.prepare("p", items, tmp_path).manifest
    cuts = read_manifest(manifest)
    config = DataConfig(train="train", max_seconds=2.0, speeds=[1.0, 2.0])
    usable = trainable(cuts, TEXT, config, lambda seconds: int(20 * seconds))
    # At double speed 0.5 s have 5 frames: ABE fits into them, and 160 characters do not.
    assert (usable.size, usable.too_long, usable.too_many_characters) == (150, 1, 1)
    assert {cut.supervisions[0].text for cut in usable.cuts} == {"ABE"}
    with pytest.raises(LASError, match="more characters than CTC has frames"):
        trainable(cuts, TEXT, config, lambda seconds: int(4 * seconds))
    short = DataConfig(train="train", max_seconds=0.1)
    with pytest.raises(LASError, match="train: no utterance is left"):
        trainable(cuts, TEXT, short, lambda seconds: 1000)


def test_one_in_a_hundred_may_be_dense_and_no_more(tmp_path):
    for bad, fits in ((1, True), (2, False)):
        folder = tmp_path / str(bad)
        (items,) = corpora.folder(
            _recorded(folder, ["ABE"] * (100 - bad) + ["A" * 99] * bad)
        ).values()
        cuts = read_manifest(corpora.prepare("p", items, folder).manifest)
        if fits:
            assert trainable(cuts, TEXT, DataConfig(), lambda _: 20).too_many_characters == 1
        else:
            with pytest.raises(LASError, match="2 of 100 utterances"):
                trainable(cuts, TEXT, DataConfig(), lambda _: 20)


def _recorded(folder, texts):
    """Half a second of noise for every text, and 3 s for the ones with FADE."""
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).normal(scale=0.1, size=3 * RATE).astype(np.float32)
    for index, text in enumerate(texts):
        path = folder / f"{index}.wav"
        soundfile.write(path, noise if "FADE" in text else noise[: RATE // 2], RATE)
        path.with_suffix(".txt").write_text(text)
    return folder
