"""Estimates a character n-gram model from a text with modified Kneser-Ney discounting.

An n-gram is a 64-bit number, and counting is sorting: some minutes on one core for 230 million
characters at order 12, and about 40 bytes of memory per character.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from las.errors import LASError
from las.lm.corpus import Sentences
from las.lm.ngram import BITS, NgramConfig, NgramModel, quantise
from las.text.characters import EOS

Codes = NDArray[np.uint64]
_SHIFT = np.uint64(BITS)
_HEADER = 1000  # bytes of a model's file besides the n-grams


class Level(NamedTuple):
    """All n-grams of one length."""

    codes: Codes  # sorted
    counts: NDArray[np.int32]  # number of occurrences


def build(
    sentences: Sentences,
    config: NgramConfig,
    least: Sequence[int] = (1,),
    max_bytes: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> NgramModel:
    """Estimate a model from a text: :func:`count`, then :func:`assemble`."""
    return assemble(count(sentences, config.order, progress), config, least, max_bytes, progress)


def count(
    sentences: Sentences, order: int, progress: Callable[[str], None] = lambda _: None
) -> list[Level]:
    """The n-grams of a text, the shortest first.

    Args:
        sentences: the text.
        order: the maximum length.
        progress: called with a line after each length.

    Raises:
        LASError: the text has no sentence.
    """
    if not len(sentences):
        raise LASError("no sentence to count n-grams in")
    stream = _stream(sentences)
    starts = np.flatnonzero(stream == EOS)
    # Number of ids before each position in its sentence, including the start.
    before = np.zeros(len(stream), np.uint8)
    within = np.arange(1, len(stream)) - np.repeat(starts[:-1], np.diff(starts))
    before[1:] = np.minimum(within, order)
    del within
    levels = []
    codes = np.zeros(len(stream), np.uint64)
    for n in range(1, order + 1):
        back = n - 1
        ids = stream[: max(0, len(stream) - back)].astype(np.uint64)
        codes[back:] |= ids << np.uint64(BITS * back)
        del ids
        levels.append(Level(*_unique(codes[before >= max(1, back)])))
        progress(f"{len(levels[-1].codes):,} n-grams of length {n}")
    return levels


def assemble(
    levels: list[Level],
    config: NgramConfig,
    least: Sequence[int] = (1,),
    max_bytes: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> NgramModel:
    """Estimate a model from counts.

    Args:
        levels: of :func:`count`.
        config: alphabet and order.
        least: minimum counts of n-grams of length 1, 2 ...; the last value applies to all longer
            ones.
        max_bytes: of the model's file; rare n-grams are removed until it fits.
        progress: called with a line of progress.

    Raises:
        LASError: no model is that small.
    """
    limits = [least[min(n, len(least) - 1)] for n in range(len(levels))]
    limits = np.maximum.accumulate(limits).tolist()  # the suffix of a kept n-gram is kept
    if max_bytes is not None:
        floor = _floor(levels, limits, max_bytes)
        limits = [max(limit, floor) for limit in limits]
    limits[0] = 1
    kept: list[Codes] = []
    shares: list[NDArray[np.uint8]] = []
    weights = levels[-1].counts
    for n in range(len(levels), 0, -1):
        codes, counts = levels[n - 1]
        keep = counts >= limits[n - 1]
        kept.insert(0, codes[keep])
        # All single characters occur, and far more than twice.
        found = discounts(weights) if n > 1 else np.zeros(4)
        shares.insert(0, _shares(codes, weights, found)[keep])
        if n > 1:
            weights = _passed(codes, np.where(keep, 1, weights), levels[n - 2], n)
    progress(f"{sum(map(len, kept)):,} of them kept, which occur {limits[-1]} times or more")
    root = (np.uint32(1) << kept[0].astype(np.uint32)).sum(dtype=np.uint32)
    followers = [np.array([root], np.int32)]
    followers += [_followers(*pair) for pair in pairwise(kept)]
    return NgramModel(
        config,
        torch.from_numpy(np.concatenate(followers)),
        torch.from_numpy(np.concatenate(shares)),
    )


def _passed(codes: Codes, passed: NDArray[np.int32], shorter: Level, n: int) -> NDArray[np.int32]:
    """Kneser-Ney counts of the shorter n-grams, from n-grams of length n.

    A shorter context is used only where a longer one is not found. So an n-gram counts once for
    each longer one that is kept (Kneser & Ney 1995), and as often as it occurs for those that are
    removed. At the start of a sentence there is no longer one.
    """
    places = np.searchsorted(shorter.codes, codes & np.uint64((1 << (BITS * (n - 1))) - 1))
    sums = np.bincount(places, passed, minlength=len(shorter.codes)).astype(np.int32)
    return np.where(sums > 0, sums, shorter.counts)


def _stream(sentences: Sentences) -> NDArray[np.uint8]:
    """All sentences concatenated, with an end of sentence before, between and after them."""
    lengths = np.diff(sentences.offsets)
    stream = np.full(len(sentences.ids) + len(sentences) + 1, EOS, np.uint8)
    stream[np.arange(1, len(sentences.ids) + 1) + np.repeat(np.arange(len(lengths)), lengths)] = (
        sentences.ids
    )
    return stream


def _unique(codes: Codes) -> tuple[Codes, NDArray[np.int32]]:
    """Distinct codes and their counts; sorts in place."""
    codes.sort()
    first = _changes(codes)
    return codes[first], np.diff(first, append=len(codes)).astype(np.int32)


def _changes(values: Codes) -> NDArray[np.int64]:
    """Positions where a value differs from the one before."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])


def discounts(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Discounts of counts 0, 1, 2, and 3 or more (Chen & Goodman 1999, equation 17)."""
    once, twice, thrice, four = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    if not once * twice * thrice:  # too little text for an estimate
        return np.array([0.0, 0.5, 0.75, 0.75])
    y = once / (once + 2 * twice)
    found = [1 - 2 * y * twice / once, 2 - 3 * y * thrice / twice, 3 - 4 * y * four / thrice]
    return np.array([0.0, *np.clip(found, 0.05, [0.95, 1.9, 2.9])])


def _shares(
    codes: Codes, counts: NDArray[np.int32], discount: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Share of each n-gram in the probability of its context, after discounting."""
    first = _changes(codes >> _SHIFT)
    totals = np.add.reduceat(counts.astype(np.int64), first)
    totals = np.repeat(totals, np.diff(first, append=len(codes)))
    shares = (counts - discount[np.minimum(counts, 3)]) / totals
    return quantise(torch.from_numpy(shares.astype(np.float32))).numpy()


def _floor(levels: list[Level], limits: list[int], max_bytes: int) -> int:
    """The lowest minimum count with which the model fits so many bytes."""
    low, high = 1, max(int(level.counts.max(initial=1)) for level in levels)
    if _bytes(levels, limits, high) > max_bytes:
        raise LASError(f"no n-gram model of this text fits {max_bytes:,} bytes; allow more")
    while low < high:
        middle = (low + high) // 2
        if _bytes(levels, limits, middle) > max_bytes:
            low = middle + 1
        else:
            high = middle
    return low


def _bytes(levels: list[Level], limits: list[int], floor: int) -> int:
    """Size of the file: a byte an n-gram, a bit if it may have followers, four bytes if it has."""
    size = _HEADER
    kept = [
        level.codes[level.counts >= (max(limit, floor) if n else 1)]
        for n, (level, limit) in enumerate(zip(levels, limits, strict=True))
    ]
    for codes, longer in zip(kept, [*kept[1:], None], strict=True):
        size += len(codes)
        if longer is not None:
            size += len(codes) // 8 + 4 * len(_changes(longer >> _SHIFT))
    return size


def _followers(codes: Codes, longer: Codes) -> NDArray[np.int32]:
    """Bit masks of the ids that follow each n-gram."""
    followers = np.zeros(len(codes), np.int32)
    if len(longer):
        contexts = longer >> _SHIFT
        first = _changes(contexts)
        bits = np.int32(1) << (longer & np.uint64((1 << BITS) - 1)).astype(np.int32)
        followers[np.searchsorted(codes, contexts[first])] = np.bitwise_or.reduceat(bits, first)
    return followers
