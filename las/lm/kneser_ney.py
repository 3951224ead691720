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
from las.lm.ngram import BITS, STEPS, NgramConfig, NgramModel, quantise
from las.text.characters import EOS

Codes = NDArray[np.uint64]
Mask = NDArray[np.bool_]
_SHIFT = np.uint64(BITS)
_HEADER = 1000  # bytes of a model's file besides the n-grams
_INNER = 4  # bytes of an n-gram that others continue, more than of another
_CANDIDATES = 6  # times the size wanted: n-grams whose gain is computed
_HALVINGS = 24  # bisection steps of the search for the lowest limit


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
        max_bytes: of the model's file; the n-grams with the least gain are pruned until it fits.
        progress: called with a line of progress.

    Raises:
        LASError: no model is that small.
    """
    limits = [least[min(n, len(least) - 1)] for n in range(len(levels))]
    limits = np.maximum.accumulate(limits).tolist()  # the suffix of a kept n-gram is kept
    keep = _frequent(levels, limits)
    if max_bytes is not None and _bytes(levels, keep) > max_bytes:
        keep = _fitting(levels, limits, max_bytes)
    kept, shares = _estimate(levels, keep)
    progress(f"{sum(map(len, kept)):,} of them kept")
    root = (np.uint32(1) << kept[0].astype(np.uint32)).sum(dtype=np.uint32)
    followers = [np.array([root], np.int32)]
    followers += [_followers(*pair) for pair in pairwise(kept)]
    return NgramModel(
        config,
        torch.from_numpy(np.concatenate(followers)),
        torch.from_numpy(np.concatenate(shares)),
    )


def _frequent(levels: list[Level], limits: Sequence[int]) -> list[Mask]:
    """Masks of the n-grams with these minimum counts, and of all single characters."""
    keep = [level.counts >= limit for level, limit in zip(levels, limits, strict=True)]
    keep[0][:] = True
    return keep


def _estimate(levels: list[Level], keep: list[Mask]) -> tuple[list[Codes], list[NDArray[np.uint8]]]:
    """The n-grams in ``keep`` and their shares."""
    kept: list[Codes] = []
    shares: list[NDArray[np.uint8]] = []
    weights = levels[-1].counts
    for n in range(len(levels), 0, -1):
        codes, mask = levels[n - 1].codes, keep[n - 1]
        kept.insert(0, codes[mask])
        # All single characters occur, and far more than twice.
        found = discounts(weights) if n > 1 else np.zeros(4)
        shares.insert(0, _shares(codes, weights, found)[mask])
        if n > 1:
            weights = _passed(codes, np.where(mask, 1, weights), levels[n - 2], n)
    return kept, shares


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


def _fitting(levels: list[Level], limits: Sequence[int], max_bytes: int) -> list[Mask]:
    """Masks of the n-grams with the largest gain that fit the size.

    The gain of an n-gram is its count times the change of log-probability if it is removed (the
    weighted difference of Seymore & Rosenfeld 1996). Rare ones have none worth keeping: they are
    left out first, until what remains is a few times too large.

    Raises:
        LASError: no model is that small.
    """
    floor = _floor(levels, limits, _CANDIDATES * max_bytes)
    frequent = _frequent(levels, [max(limit, floor) for limit in limits])
    codes, shares = _estimate(levels, frequent)
    counts = [level.counts[mask] for level, mask in zip(levels, frequent, strict=True)]
    parents = [np.searchsorted(a, b >> _SHIFT) for a, b in pairwise(codes)]
    gains = [np.zeros(len(codes[0]))]  # all are kept
    portions = [np.exp(share / -STEPS) for share in shares]
    lower = portions[0]
    for n, parent in enumerate(parents, start=1):
        share = portions[n]
        rest = 1 - np.bincount(parent, share, minlength=len(codes[n - 1]))[parent]
        rest = np.maximum(rest, 1e-5)
        lower = lower[np.searchsorted(codes[n - 1], codes[n] & np.uint64((1 << (BITS * n)) - 1))]
        probs = share + rest * lower
        gains.append(counts[n] * np.log(probs / ((rest + share) * lower)))
        lower = probs

    def kept(price: float) -> list[Mask]:
        """The trie with the largest gain, less this price of each of its bytes."""
        values = [gain - price for gain in gains]  # with those of the kept ones that continue it
        opened: list[Mask] = []
        for n in range(len(gains) - 1, 0, -1):
            sums = np.bincount(parents[n - 1], values[n].clip(0), minlength=len(gains[n - 1]))
            value = sums.astype(np.float64) - _INNER * price
            opened.insert(0, value > 0)
            values[n - 1] += value.clip(0)
        masks = [np.ones(len(gains[0]), bool)]
        for parent, own, able in zip(parents, values[1:], opened, strict=True):
            masks.append((own > 0) & (masks[-1] & able)[parent])
        return masks

    highest = max(float(gain.max(initial=1.0)) for gain in gains[1:]) + 1.0
    slim = [Level(*both) for both in zip(codes, counts, strict=True)]
    if _bytes(slim, kept(highest)) > max_bytes:
        raise LASError(f"no n-gram model of this text fits {max_bytes:,} bytes; allow more")
    price = lowest_limit(lambda price: _bytes(slim, kept(price)) <= max_bytes, highest)
    for mask, chosen in zip(frequent, kept(price), strict=True):
        mask[mask] = chosen
    return frequent


def lowest_limit(fits: Callable[[float], bool], highest: float) -> float:
    """The lowest limit with which a model fits, up to rounding; with ``highest`` it does."""
    low, high = 0.0, highest
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5 if low > 0 else high / 16
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _floor(levels: list[Level], limits: Sequence[int], max_bytes: int) -> int:
    """The lowest minimum count with which a model fits so many bytes, if there is one."""
    low, high = 1, max(int(level.counts.max(initial=1)) for level in levels)
    while low < high:
        middle = (low + high) // 2
        masks = _frequent(levels, [max(limit, middle) for limit in limits])
        low, high = (middle + 1, high) if _bytes(levels, masks) > max_bytes else (low, middle)
    return low


def _bytes(levels: list[Level], keep: list[Mask]) -> int:
    """Size of the file: a byte an n-gram, a bit if it may have followers, four bytes if it has."""
    size = _HEADER
    kept = [level.codes[mask] for level, mask in zip(levels, keep, strict=True)]
    for codes, longer in zip(kept, [*kept[1:], None], strict=True):
        size += len(codes)
        if longer is not None:
            size += len(codes) // 8 + _INNER * len(_changes(longer >> _SHIFT))
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
