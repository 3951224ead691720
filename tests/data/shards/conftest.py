"""A small corpus as shards and, for comparison, as a manifest."""

import pytest
from speech import RATE, sentences, write_folder

from las.config import DataConfig
from las.data import corpora
from las.data.dataset import training_batches
from las.data.shards.preparation import prepare_shards
from las.data.shards.reader import ShardSet
from las.text.characters import Characters

COUNT = 22


@pytest.fixture(scope="package")
def items(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("audio"), sentences(COUNT))
    (found,) = corpora.folder(folder).values()
    return found


@pytest.fixture(scope="package")
def manifest(items, tmp_path_factory):
    return corpora.prepare("part", items, tmp_path_factory.mktemp("manifest")).manifest


@pytest.fixture(scope="package")
def shards(items, tmp_path_factory):
    """Four shards, of files as they are; not to be changed."""
    return prepare_shards("part", items, tmp_path_factory.mktemp("shards"), size=6).manifest


@pytest.fixture
def read():
    """Reads an epoch of a shard set, or of what is given in its place."""

    def run(train, cuts=None, frames=lambda seconds: 10**6, **changes):
        places = {"seed": 1, "epoch": 1, "skip": 0, "rank": 0, "world": 1}
        places = {key: changes.pop(key, value) for key, value in places.items()}
        settings = {"batch_seconds": 8.0, "batch_utterances": 5, "workers": 0, "shuffle": 15}
        names = [str(one) for one in train] if isinstance(train, list) else str(train)
        config = DataConfig(train=names, **(settings | changes))
        text = Characters()
        cuts = cuts or ShardSet(config, text, frames).trainable().cuts
        return list(training_batches(cuts, COUNT, text, config, sample_rate=RATE, **places))

    return run
