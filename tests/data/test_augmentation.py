"""What training utterances go through: drawn anew in every epoch, the same each time."""

import numpy as np
import pytest
from lhotse import CutSet
from lhotse.testing.dummies import dummy_cut, dummy_supervision
from speech import sentences, whistle, write_manifest

from las.config import DataConfig
from las.data.augmentation import GAINS, JOINED_SECONDS, distort, drop_transcript, join, text_of
from las.data.dataset import training_batches
from las.data.manifests import read_manifest
from las.data.noise import random_sound
from las.text.characters import Characters

RATE = 8000
TEXT = Characters()


def cuts_of(count: int, seconds: float) -> CutSet:
    found = []
    for i in range(count):
        said = dummy_supervision(i, duration=seconds, text=f"WORD{'ABCDEFGHIJ'[i % 10]}")
        found.append(dummy_cut(i, duration=seconds, supervisions=[said]))
    return CutSet.from_cuts(found)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_utterance_is_joined_once_or_left_alone(share):
    cuts = cuts_of(400, 2.0)
    for epoch in (0, 1):
        found = list(join(cuts, share, seed=1, epoch=epoch))
        assert sorted(s.id for cut in found for s in cut.supervisions) == sorted(
            s.id for cut in cuts for s in cut.supervisions
        )
        assert len({cut.id for cut in found}) == len(found)
        longer = [cut for cut in found if len(cut.supervisions) > 1]
        assert all(cut.duration <= JOINED_SECONDS[1] for cut in longer)
        parts = sum(len(cut.supervisions) for cut in longer)
        assert abs(parts / len(cuts) - share) < 0.1
        for cut in longer:
            assert text_of(cut).split() == [s.text for s in cut.supervisions]
        again = list(join(cuts, share, seed=1, epoch=epoch))
        assert [cut.id for cut in again] == [cut.id for cut in found]
        assert [cut.duration for cut in again] == [cut.duration for cut in found]


def test_epochs_join_others():
    cuts = cuts_of(200, 2.0)
    texts = [
        {text_of(cut) for cut in join(cuts, 0.5, seed, epoch)} for seed, epoch in ((1, 0), (1, 1))
    ]
    assert texts[0] != texts[1]


def test_long_utterances_and_those_without_text_stay_alone():
    assert all(len(cut.supervisions) == 1 for cut in join(cuts_of(50, 7.0), 1.0, 1, 0))
    quiet = CutSet.from_cuts(drop_transcript(cut, 1.0, 1, 0) for cut in cuts_of(50, 2.0))
    assert all(len(cut.supervisions) == 1 for cut in join(quiet, 1.0, 1, 0))


def test_a_share_is_silenced():
    cuts = cuts_of(1000, 2.0)
    quiet = sum(not text_of(drop_transcript(cut, 0.2, 1, 3)) for cut in cuts)
    assert 150 < quiet < 250
    assert all(text_of(drop_transcript(cut, 0.0, 1, 3)) for cut in cuts)


def test_what_has_no_text_does_not_sound_like_speech():
    cut = drop_transcript(next(iter(cuts_of(1, 2.0))), 1.0, 1, 0)
    samples = whistle("ABE BEAD")
    found = distort(cut, samples, DataConfig(silence=1.0), RATE, 1, 0)
    assert found.shape == samples.shape and not np.array_equal(found, samples)
    assert abs(found @ samples) <= 0.2 * np.linalg.norm(found) * np.linalg.norm(samples)


@pytest.mark.parametrize("setting", ["rooms", "volume"])
def test_by_chance_or_always_or_never(setting):
    cuts, samples = list(cuts_of(40, 2.0)), whistle("ABE BEAD")
    for share, least, most in ((0.0, 0, 0), (0.5, 8, 32), (1.0, 40, 40)):
        config = DataConfig(**{setting: share})
        changed = [distort(cut, samples, config, RATE, 1, 0) for cut in cuts]
        assert least <= sum(not np.array_equal(x, samples) for x in changed) <= most
        for x, cut in zip(changed, cuts, strict=True):
            assert x.dtype == np.float32 and x.shape == samples.shape
            assert np.array_equal(x, distort(cut, samples, config, RATE, 1, 0))


def test_volume_is_within_its_gains_and_clips():
    samples = np.full(100, 0.8, np.float32)
    found = [
        distort(cut, samples, DataConfig(volume=1.0), RATE, 1, 0)[0] for cut in cuts_of(99, 2.0)
    ]
    assert min(found) >= 0.8 * 10 ** (GAINS[0] / 20) * 0.999
    assert max(found) == 1.0


def test_sounds_are_of_all_kinds_and_finite():
    sounds = [random_sound(4000, RATE, np.random.default_rng(i)) for i in range(60)]
    assert all(x.dtype == np.float32 and np.isfinite(x).all() for x in sounds)
    assert max(np.abs(x).max() for x in sounds) <= 1.0
    assert any(not x.any() for x in sounds)  # silence
    assert any(0 < np.count_nonzero(x) < 100 for x in sounds)  # clicks
    assert random_sound(0, RATE, np.random.default_rng(0)).shape == (0,)


def test_batches_of_joined_and_silenced_utterances(tmp_path):
    manifest = write_manifest(tmp_path, sentences(40))
    cuts = read_manifest(manifest)
    config = DataConfig(
        train=str(manifest), joins=0.7, silence=0.2, rooms=0.3, volume=0.3, speeds=[0.9, 1.1],
        workers=0,
    )  # fmt: skip

    def epoch(number: int, skip: int = 0):
        settings = {"sample_rate": RATE, "seed": 1, "epoch": number, "skip": skip}
        return list(training_batches(cuts, 40, TEXT, config, **settings))

    for number in (0, 1):  # in order of duration, and shuffled
        batches = epoch(number)
        words = [text for batch in batches for text in batch.texts]
        assert "" in words and max(len(text.split()) for text in words) > 4
        for batch in batches:
            for text, count in zip(batch.texts, batch.token_lengths, strict=True):
                assert count == len(text)
        rest = epoch(number, skip=1)
        assert [batch.ids for batch in rest] == [batch.ids for batch in batches[1:]]
