"""Which utterances of shards make up each batch of an epoch, from the index alone.

An epoch reads each corpus as many times as its weight says. The shards of all corpora are put in a
random order; those of about ``data.shuffle`` utterances at a time form a window, whose utterances
are shuffled, sorted into buckets of similar duration and divided into batches. Everything depends
on (seed, epoch, batches of a step) alone. Only one window is in memory, and no shard is read, so
that a resumed training is where it was within seconds.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from las.config import DataConfig
from las.data.augmentation import GAPS, JOINED_SECONDS

_BUFFER = 32  # utterances that are held to be joined


class Source(Protocol):
    """What the plan knows of a corpus; see :class:`las.data.shards.index.Corpus`."""

    utterances: np.ndarray

    def records(self, shard: int) -> np.ndarray:
        """Utterances with ``seconds``."""


class Part(NamedTuple):
    """An utterance of a batch, or a part of one that is joined."""

    corpus: int
    shard: int
    row: int
    copy: int  # how many times this epoch has read the shard before
    speed: float
    gap: float = 0.0  # seconds of silence before it, if it is joined to another


Planned = list[list[Part]]
"""A batch: for each utterance its parts, of which there are several if it is joined."""


def epoch_shards(
    counts: Sequence[int], weights: Sequence[float], seed: int, epoch: int
) -> np.ndarray:
    """The shards of an epoch in random order: corpus, shard and copy, [n, 3].

    A corpus is read pass by pass, each in a new order. Each epoch goes on where the one before
    ended: with a weight of 0.5, two epochs read every shard once.

    Args:
        counts: shards of each corpus.
        weights: how many times an epoch reads each corpus.
        seed: of the training.
        epoch: counted from 0.
    """
    found = []
    for corpus, (count, weight) in enumerate(zip(counts, weights, strict=True)):
        first, last = (int(number * weight * count + 0.5) for number in (epoch, epoch + 1))
        for number in range(first // count, -(-last // count)):
            order = np.random.default_rng([seed, 0, corpus, number]).permutation(count)
            order = order[max(0, first - number * count) : max(0, last - number * count)]
            copy = number - first // count
            found.append(np.stack([np.full_like(order, n) for n in (corpus, 0, copy)], axis=1))
            found[-1][:, 1] = order
    shards = np.concatenate(found) if found else np.empty((0, 3), np.int64)
    return np.random.default_rng([seed, 1, epoch]).permutation(shards)


@dataclass
class Window:
    """Utterances that are shuffled together, in arrays [n]."""

    corpus: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    copy: np.ndarray
    speed: np.ndarray
    seconds: np.ndarray  # at this speed
    joined: list[list[tuple[int, float]]] = field(default_factory=list)

    def parts(self, indices: Sequence[int]) -> Planned:
        """The utterances of a batch; beyond n an index is that of a joined one."""
        count = len(self.row)
        several = [
            self.joined[index - count] if index >= count else [(index, 0.0)] for index in indices
        ]
        return [[self._part(at, gap) for at, gap in parts] for parts in several]

    def _part(self, at: int, gap: float) -> Part:
        whole = (self.corpus, self.shard, self.row, self.copy)
        corpus, shard, row, copy = (int(array[at]) for array in whole)
        return Part(corpus, shard, row, copy, float(self.speed[at]), gap)


@dataclass
class ShardSampler:
    """The batches of an epoch, those of a step one after another and of similar durations.

    The order depends on how many batches a step has, not on how many processes share them.

    Args:
        corpora: what is read.
        weights: how many times an epoch reads each corpus.
        config: sizes of windows and batches, speeds and joins.
        seed: of the training.
        epoch: counted from 0.
        skip: batches of this epoch that were already used.
        group: batches of an optimizer step.
        ahead: called with the shards (corpus, shard) of each window while the one before is read.
    """

    corpora: Sequence[Source]
    weights: Sequence[float]
    config: DataConfig
    seed: int
    epoch: int
    skip: int = 0
    group: int = 1
    ahead: Callable[[np.ndarray], None] | None = None

    def __iter__(self) -> Iterator[Planned]:
        ascending = self.epoch < self.config.short_first
        done = 0
        carried: list[Planned] = []  # batches that are too few for a step
        windows, following = itertools.tee(self._windows())
        next(following, None)
        for number, shards in enumerate(windows):
            random = np.random.default_rng([self.seed, 2, self.epoch, number])
            window = self._window(shards, random)
            after = next(following, None)
            seconds = self._join(window, random)
            batches = batch_up(seconds, self.config, None if ascending else random)
            steps, rest = divmod(len(carried) + len(batches), self.group)

            def batch(
                at: int,
                carried: list[Planned] = carried,
                window: Window = window,
                batches: list[list[int]] = batches,
            ) -> Planned:
                old = len(carried)
                return carried[at] if at < old else window.parts(batches[at - old])

            used = done + steps * self.group <= self.skip
            if self.ahead is not None and after is not None and not used:
                self.ahead(after[:, :2])
            for step in range(steps) if ascending else random.permutation(steps).tolist():
                start = rest + step * self.group
                for at in range(start, start + self.group):
                    if done >= self.skip:
                        yield batch(at)
                    done += 1
            carried = [batch(at) for at in range(rest)]
        yield from carried[max(0, self.skip - done) :]

    def _windows(self) -> Iterator[np.ndarray]:
        """Shards that are read together, as of :func:`epoch_shards`."""
        counts = [len(corpus.utterances) for corpus in self.corpora]
        shards = epoch_shards(counts, self.weights, self.seed, self.epoch)
        first = total = 0
        for last, (corpus, shard, _) in enumerate(shards, start=1):
            total += int(self.corpora[corpus].utterances[shard])
            if total >= self.config.shuffle or last == len(shards):
                yield shards[first:last]
                first, total = last, 0

    def _window(self, shards: np.ndarray, random: np.random.Generator) -> Window:
        columns = []
        for corpus, shard, copy in shards:
            seconds = self.corpora[corpus].records(shard)["seconds"].astype(np.float64)
            (rows,) = np.nonzero(seconds <= self.config.max_seconds)
            same = [np.full(len(rows), value) for value in (corpus, shard, copy)]
            columns.append((*same, rows, seconds[rows]))
        corpus, shard, copy, row, seconds = map(np.concatenate, zip(*columns, strict=True))
        speed = random.choice(self.config.speeds, len(row))
        return Window(corpus, shard, row, copy, speed, seconds / speed)

    def _join(self, window: Window, random: np.random.Generator) -> np.ndarray:
        """Join a share of the short utterances, as :class:`las.data.augmentation.Joined` does.

        Returns:
            durations, with those of joined utterances at the end; 0 of those that were joined.
        """
        seconds = window.seconds
        if not self.config.joins:
            return seconds
        short = seconds < JOINED_SECONDS[0]
        chosen = np.flatnonzero(short & (random.random(len(seconds)) < self.config.joins))
        due, lengths = iter(chosen.tolist()), []
        waiting = list(itertools.islice(due, _BUFFER))
        while waiting:
            parts = [(waiting.pop(0), 0.0)]
            length = float(seconds[parts[0][0]])
            limit = random.uniform(*JOINED_SECONDS)
            neighbours = random.random() < 0.5
            while waiting:
                at = 0 if neighbours else int(random.integers(len(waiting)))
                gap = random.uniform(*GAPS)
                if length + gap + seconds[waiting[at]] > limit:
                    break
                length += gap + float(seconds[waiting[at]])
                parts.append((waiting.pop(at), gap))
            waiting += itertools.islice(due, len(parts))
            window.joined.append(parts)
            lengths.append(length)
        seconds = seconds.copy()
        seconds[chosen] = 0.0
        return np.concatenate([seconds, lengths])


def batch_up(
    seconds: np.ndarray, config: DataConfig, random: np.random.Generator | None
) -> list[list[int]]:
    """Divide utterances into batches of similar durations, shorter ones first.

    A batch, padded to its longest utterance, obeys the limits of the settings, unless it is a
    single utterance.

    Args:
        seconds: durations; 0 for what is not to be read.
        config: limits, and number of buckets.
        random: orders the utterances of a bucket; None: exactly in order of duration.

    Returns:
        the indices of each batch.
    """
    (order,) = np.nonzero(seconds)
    order = order[np.argsort(seconds[order], kind="stable")]
    if random is not None:
        buckets = max(1, min(config.buckets, len(order) // 8))
        bucket = np.arange(len(order)) * buckets // max(1, len(order))
        order = order[np.lexsort((random.random(len(order)), bucket))]
    batches: list[list[int]] = []
    longest = np.inf
    for index, length in zip(order.tolist(), seconds[order].tolist(), strict=True):
        longest = max(longest, length)
        if (
            not batches
            or len(batches[-1]) >= config.batch_utterances
            or (len(batches[-1]) + 1) * longest > config.batch_seconds
        ):
            batches.append([])
            longest = length
        batches[-1].append(index)
    return batches
