"""Counts the n-grams of a text and makes a model of them: modified Kneser-Ney discounting.

An n-gram of characters is one 64-bit number, so that counting is sorting: six minutes of one
core for 230 million characters at an order of 12, and 30 bytes of memory a character.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from las.errors import LASError
from las.lm_text import Sentences
from las.ngram import BITS, NgramConfig, NgramModel, quantise
from las.text import EOS

Codes = NDArray[np.uint64]
_SHIFT = np.uint64(BITS)


class Level(NamedTuple):
    """N-grams of one length."""

    codes: Codes  # sorted
    counts: NDArray[np.int32]  # how often each occurs
    shares: NDArray[np.uint8]  # see las.ngram.quantise


def build(
    sentences: Sentences,
    config: NgramConfig,
    least: Sequence[int] = (1,),
    max_bytes: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> NgramModel:
    """A model of a text: :func:`count`, then :func:`assemble`."""
    return assemble(count(sentences, config, least, progress), config, max_bytes, progress)


def count(
    sentences: Sentences,
    config: NgramConfig,
    least: Sequence[int] = (1,),
    progress: Callable[[str], None] = lambda _: None,
) -> list[Level]:
    """The n-grams of a text, the shortest first.

    Args:
        sentences: the text.
        config: alphabet and order.
        least: how often n-grams of length 1, 2 ... must occur to be kept; the last one holds for
            the rest.
        progress: told what was done.

    Raises:
        LASError: there is nothing to count.
    """
    if not len(sentences):
        raise LASError("no sentence to count n-grams in")
    limits = [least[min(n, len(least) - 1)] for n in range(config.order)]
    limits = np.maximum.accumulate(limits).tolist()  # what is kept, is kept without its first id
    levels: list[Level] = []
    for level in _levels(_stream(sentences), config.order):
        n = config.order - len(levels)
        kept = _prune(level, limits[n - 1])
        progress(f"{len(level.codes):,} n-grams of length {n}, {len(kept.codes):,} kept")
        levels.insert(0, kept)
    return levels


def assemble(
    levels: list[Level],
    config: NgramConfig,
    max_bytes: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> NgramModel:
    """A model of counted n-grams.

    Args:
        levels: of :func:`count`.
        config: alphabet and order.
        max_bytes: of the model's file; rare n-grams are left out until it fits.
        progress: told what was done.

    Raises:
        LASError: no model is as small.
    """
    if max_bytes is not None:
        floor = _floor(levels, max_bytes)
        levels = [_prune(level, floor if n else 1) for n, level in enumerate(levels)]
        total = sum(len(level.codes) for level in levels)
        progress(f"{total:,} n-grams that occur {floor} times fit {max_bytes:,} bytes")
    root = (np.uint32(1) << levels[0].codes.astype(np.uint32)).sum(dtype=np.uint32)
    followers = [np.array([root], np.int32)]
    followers += [_followers(*pair) for pair in pairwise(levels)]
    shares = np.concatenate([level.shares for level in levels])
    return NgramModel(config, torch.from_numpy(np.concatenate(followers)), torch.from_numpy(shares))


def _stream(sentences: Sentences) -> NDArray[np.uint8]:
    """All sentences after one another, an end before, between and after them."""
    lengths = np.diff(sentences.offsets)
    stream = np.full(len(sentences.ids) + len(sentences) + 1, EOS, np.uint8)
    stream[np.arange(1, len(sentences.ids) + 1) + np.repeat(np.arange(len(lengths)), lengths)] = (
        sentences.ids
    )
    return stream


def _levels(stream: NDArray[np.uint8], order: int) -> Iterator[Level]:
    """N-grams with their discounted shares, the longest first."""
    starts = np.flatnonzero(stream == EOS)
    # How many ids of its own sentence stand before each, its start among them.
    before = np.zeros(len(stream), np.uint8)
    within = np.arange(1, len(stream)) - np.repeat(starts[:-1], np.diff(starts))
    before[1:] = np.minimum(within, order)
    del within
    longer: Codes | None = None
    for n in range(order, 0, -1):
        codes, counts = _count(stream, before, n)
        weights = counts
        if longer is not None:
            # A shorter context is asked only where a longer one was not seen: there counts in how
            # many contexts an n-gram occurs, not how often. At the start there is none longer.
            suffixes, contexts = _unique(longer & np.uint64((1 << (BITS * n)) - 1))
            weights = counts.copy()
            weights[np.searchsorted(codes, suffixes)] = contexts
        yield Level(codes, counts, _shares(codes, weights, _discounts(weights, n)))
        longer = codes


def _count(
    stream: NDArray[np.uint8], before: NDArray[np.uint8], n: int
) -> tuple[Codes, NDArray[np.int32]]:
    """The n-grams of length n, sorted, and how often each occurs."""
    codes = np.zeros(len(stream), np.uint64)
    for back in range(min(n, len(stream))):
        codes[back:] |= stream[: len(stream) - back].astype(np.uint64) << np.uint64(BITS * back)
    return _unique(codes[before >= max(1, n - 1)])


def _unique(codes: Codes) -> tuple[Codes, NDArray[np.int32]]:
    """Sorts in place."""
    codes.sort()
    first = _changes(codes)
    return codes[first], np.diff(first, append=len(codes)).astype(np.int32)


def _changes(values: Codes) -> NDArray[np.int64]:
    """Where values differ from the ones before."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])


def _discounts(counts: NDArray[np.int32], n: int) -> NDArray[np.float64]:
    """What to take off counts of 0, 1, 2, and 3 or more (Chen & Goodman 1999, equation 17)."""
    if n == 1:
        return np.zeros(4)
    once, twice, thrice, four = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    if not once * twice * thrice:  # too little text for an estimate
        return np.array([0.0, 0.5, 0.75, 0.75])
    y = once / (once + 2 * twice)
    found = [1 - 2 * y * twice / once, 2 - 3 * y * thrice / twice, 3 - 4 * y * four / thrice]
    return np.array([0.0, *np.clip(found, 0.05, [0.95, 1.9, 2.9])])


def _shares(
    codes: Codes, counts: NDArray[np.int32], discounts: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """What each n-gram takes of its context's probability."""
    first = _changes(codes >> _SHIFT)
    totals = np.add.reduceat(counts.astype(np.int64), first)
    totals = np.repeat(totals, np.diff(first, append=len(codes)))
    shares = (counts - discounts[np.minimum(counts, 3)]) / totals
    return quantise(torch.from_numpy(shares.astype(np.float32))).numpy()


def _prune(level: Level, least: int) -> Level:
    if least <= 1:
        return level
    keep = level.counts >= least
    return Level(level.codes[keep], level.counts[keep], level.shares[keep])


def _floor(levels: list[Level], max_bytes: int) -> int:
    """The least count at which what occurs as often fits so many bytes."""
    low, high = 1, max(int(level.counts.max(initial=1)) for level in levels)
    if _bytes(levels, high) > max_bytes:
        raise LASError(f"no n-gram model of this text fits {max_bytes:,} bytes")
    while low < high:
        middle = (low + high) // 2
        if _bytes(levels, middle) > max_bytes:
            low = middle + 1
        else:
            high = middle
    return low


def _bytes(levels: list[Level], least: int) -> int:
    """Of the file: a byte an n-gram, a bit if it may have followers, and four bytes if it has."""
    size = 1000  # header and what does not grow
    kept = [_prune(level, least if n else 1).codes for n, level in enumerate(levels)]
    for codes, longer in zip(kept, [*kept[1:], None], strict=True):
        size += len(codes)
        if longer is not None:
            size += len(codes) // 8 + 4 * len(_changes(longer >> _SHIFT))
    return size


def _followers(level: Level, longer: Level) -> NDArray[np.int32]:
    """The bits of the ids that follow each n-gram."""
    followers = np.zeros(len(level.codes), np.int32)
    if len(longer.codes):
        contexts = longer.codes >> _SHIFT
        first = _changes(contexts)
        bits = np.int32(1) << (longer.codes & np.uint64((1 << BITS) - 1)).astype(np.int32)
        place = np.searchsorted(level.codes, contexts[first])
        followers[place] = np.bitwise_or.reduceat(bits, first)
    return followers
