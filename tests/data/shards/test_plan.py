"""The plan of an epoch over shards: everything once, within limits, the same on resuming."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from las.config import DataConfig
from las.data.augmentation import JOINED_SECONDS
from las.data.shards.index import RECORD
from las.data.shards.plan import ShardSampler, epoch_shards


class Corpus:
    """Utterances of random durations, without files."""

    def __init__(self, counts, seed=0):
        self.utterances = np.array(counts)
        self.seed = seed

    def records(self, shard):
        found = np.zeros(self.utterances[shard], RECORD)
        random = np.random.default_rng([self.seed, shard])
        found["seconds"] = random.gamma(2.0, 4.0, len(found)) + 0.1
        return found


def batches(corpora, weights=None, epoch=1, seed=1, skip=0, group=1, **changes):
    config = DataConfig(**({"shuffle": 40, "batch_utterances": 5} | changes))
    weights = weights or [1.0] * len(corpora)
    return list(ShardSampler(corpora, weights, config, seed, epoch, skip, group))


def parts(found):
    return [part for batch in found for utterance in batch for part in utterance]


def names(found):
    return [(p.corpus, p.shard, p.row, p.copy) for p in parts(found)]


def seconds(corpora, utterance):
    return sum(
        float(corpora[p.corpus].records(p.shard)["seconds"][p.row]) / p.speed + p.gap
        for p in utterance
    )


CORPORA = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=3)


@settings(max_examples=40)
@given(counts=CORPORA, epoch=st.integers(0, 3), group=st.integers(1, 4), data=st.data())
def test_every_utterance_is_read_once_and_resuming_changes_nothing(counts, epoch, group, data):
    corpora = [Corpus(one, seed) for seed, one in enumerate(counts)]
    changes = {
        "joins": data.draw(st.sampled_from([0.0, 0.5])),
        "speeds": data.draw(st.sampled_from([[1.0], [0.9, 1.1]])),
        "shuffle": data.draw(st.sampled_from([1, 20, 1000])),
        "max_seconds": data.draw(st.sampled_from([8.0, 1000.0])),
    }
    whole = batches(corpora, epoch=epoch, group=group, **changes)
    expected = {
        (corpus, shard, row, 0)
        for corpus, one in enumerate(corpora)
        for shard in range(len(one.utterances))
        for row, length in enumerate(one.records(shard)["seconds"])
        if length <= changes["max_seconds"]
    }
    assert Counter(names(whole)) == Counter(expected)
    skip = data.draw(st.integers(0, len(whole)))
    tail = batches(corpora, epoch=epoch, skip=skip, group=group, **changes)
    assert tail == whole[skip:]


@settings(max_examples=30)
@given(
    limit=st.sampled_from([10.0, 40.0, 1e6]),
    utterances=st.integers(1, 9),
    joins=st.sampled_from([0.0, 1.0]),
)
def test_padded_batches_obey_the_limits(limit, utterances, joins):
    corpora = [Corpus([30, 50, 40])]
    limits = {"batch_seconds": limit, "batch_utterances": utterances, "joins": joins}
    for batch in batches(corpora, speeds=[0.9, 1.0, 1.1], **limits):
        lengths = [seconds(corpora, utterance) for utterance in batch]
        assert len(batch) <= utterances
        assert len(batch) == 1 or len(batch) * max(lengths) <= limit + 1e-6


def test_durations_of_a_batch_are_similar_and_those_of_a_step_too():
    corpora = [Corpus([400] * 5)]
    settings = {"shuffle": 1000, "batch_utterances": 8, "batch_seconds": 100.0}
    for group in (1, 3):
        found = batches(corpora, group=group, **settings)
        for start in range(0, len(found) - group, group):
            step = found[start : start + group]
            lengths = [seconds(corpora, one) for batch in step for one in batch]
            assert max(lengths) - min(lengths) < 8 or min(lengths) > 10
        if group == 1:
            overall = [seconds(corpora, one) for batch in found for one in batch]
            within = np.mean([np.std([seconds(corpora, u) for u in b]) for b in found])
            assert within < 0.25 * np.std(overall)


def test_first_epochs_are_in_order_of_duration():
    corpora = [Corpus([20, 30])]
    found = batches(corpora, epoch=0, shuffle=1000)
    lengths = [seconds(corpora, one) for batch in found for one in batch]
    assert lengths == sorted(lengths)
    later = batches(corpora, epoch=1, shuffle=1000)
    assert [seconds(corpora, one) for batch in later for one in batch] != lengths


def test_another_seed_or_epoch_gives_another_order():
    corpora = [Corpus([20] * 6)]
    orders = [str(names(batches(corpora, epoch=e, seed=s))) for e in (1, 2, 3) for s in (1, 2)]
    assert len(set(orders)) == len(orders)
    assert names(batches(corpora)) == names(batches(corpora))


def test_a_share_of_the_short_ones_is_joined():
    corpora = [Corpus([500] * 4)]
    found = [u for batch in batches(corpora, joins=0.5, shuffle=1000) for u in batch]
    joined = [utterance for utterance in found if len(utterance) > 1]
    assert len(joined) > 50
    for utterance in joined:
        assert seconds(corpora, utterance) <= JOINED_SECONDS[1] + 1e-6
        assert utterance[0].gap == 0 and all(0.1 <= part.gap <= 0.9 for part in utterance[1:])
    assert not any(len(u) > 1 for batch in batches(corpora) for u in batch)


@settings(max_examples=50)
@given(
    count=st.integers(1, 40),
    weight=st.floats(0.05, 3.0),
    seed=st.integers(0, 5),
)
def test_an_epoch_is_a_weight_of_passes(count, weight, seed):
    epochs = [epoch_shards([count], [weight], seed, epoch) for epoch in range(6)]
    for shards in epochs:
        assert abs(len(shards) - weight * count) <= 1
        assert len({tuple(one) for one in shards}) == len(shards)
    # No shard is read again before all others are.
    total = Counter(int(shard) for shards in epochs for shard in shards[:, 1])
    times = [total[shard] for shard in range(count)]
    assert max(times) - min(times) <= 1


def test_weights_mix_the_corpora():
    corpora = [Corpus([10] * 30), Corpus([10] * 60)]
    for epoch in (1, 2):
        found = names(batches(corpora, [2.0, 0.5], epoch=epoch, max_seconds=1e6))
        counts = Counter(corpus for corpus, *_ in found)
        assert counts == {0: 600, 1: 300}
        half = Counter(corpus for corpus, *_ in found[:450])
        assert 220 < half[0] < 380
    both = [
        {shard for c, shard, *_ in names(batches(corpora, [2.0, 0.5], epoch=e)) if c}
        for e in (2, 3)
    ]
    assert not both[0] & both[1] and len(both[0] | both[1]) == 60


def test_remote_shards_are_asked_for_one_window_ahead():
    corpora = [Corpus([10] * 12)]
    asked = []
    config = DataConfig(shuffle=30)
    sampler = ShardSampler(corpora, [1.0], config, 1, 1, ahead=lambda s: asked.append(len(s)))
    iterator = iter(sampler)
    next(iterator)
    assert asked == [3]
    list(iterator)
    assert asked == [3, 3, 3]


@pytest.mark.parametrize("skip", [0, 7])
def test_what_is_skipped_is_not_fetched(skip):
    corpora = [Corpus([10] * 12)]
    asked = []
    config = DataConfig(shuffle=30, batch_utterances=10, batch_seconds=1e6)
    list(ShardSampler(corpora, [1.0], config, 1, 1, skip, ahead=lambda s: asked.append(len(s))))
    assert len(asked) == (3 if skip == 0 else 1)
