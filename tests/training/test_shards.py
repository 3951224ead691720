"""A training on shards: stopped anywhere it goes on to the same bits."""

import pytest
from speech import RANDOM, equal, log_rows, run_config, sentences, train, weights, write_folder

from las.data import corpora
from las.data.shards.preparation import prepare_shards
from las.errors import LASError
from las.training.trainer import InterruptedTrainingError, Trainer


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two folders of shards with eleven utterances each."""
    folder = tmp_path_factory.mktemp("shards")
    found = []
    for name in ("a", "b"):
        texts = [" ".join(text.split()[:2]) for text in sentences(11, seed=ord(name))]
        (items,) = corpora.folder(write_folder(folder / name, texts)).values()
        found.append(str(prepare_shards(name, items, folder, size=4).manifest))
    return found


def test_a_stop_in_an_epoch_changes_no_bit(shards, tmp_path, monkeypatch):
    changes = {
        "data__weights": [1.0, 1.5],
        "data__shuffle": 9,
        "data__joins": 0.5,
        "training__epochs": 2,
        **RANDOM,
    }
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(run_config(shards, whole, **changes))
    update = Trainer._update

    def stopping(self, losses):
        update(self, losses)
        self.stop.received = self.position.step in (2, 7)

    monkeypatch.setattr(Trainer, "_update", stopping)
    config = run_config(shards, stopped, **changes)
    for step in (2, 7):
        with pytest.raises(InterruptedTrainingError, match=f"after step {step};"):
            train(config)
    train(config)
    assert log_rows(stopped) == log_rows(whole) and len(log_rows(whole)) >= 12
    assert equal(weights(stopped), weights(whole))


def test_what_a_training_refuses(shards, tmp_path):
    with pytest.raises(LASError, match="no utterance is left to train on"):
        Trainer(run_config(shards, tmp_path / "run", data__max_seconds=0.1))
    with pytest.raises(LASError, match=r"missing\.shards: no shards, or not all of them"):
        Trainer(run_config(str(tmp_path / "missing.shards"), tmp_path / "run"))
