"""Estimates a word n-gram model from a text with modified Kneser-Ney discounting.

With all n-grams it is the interpolated model of Chen & Goodman (1999), whose lowest order is
interpolated with the uniform distribution. For a small model the n-grams with the least gain are
pruned, and the probabilities estimated for the remaining ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from las.errors import LASError
from las.lm.corpus import Sentences
from las.lm.kneser_ney import discounts, lowest_limit
from las.lm.word_ngram import (
    END,
    FIRST,
    RAISED,
    START,
    UNKNOWN,
    Table,
    WordConfig,
    WordModel,
    hash_spans,
    id_bytes,
    quantise,
)
from las.text.characters import EOS, Characters

_HEADER = 2000  # bytes of a model's file besides the n-grams

Mask = NDArray[np.bool_]


class Level(NamedTuple):
    """All n-grams of one length, in order of their contexts and then of their last words."""

    parents: NDArray[np.int64]  # row of the n-gram without its last word
    words: NDArray[np.int64]
    suffixes: NDArray[np.int64]  # row of the n-gram without its first word
    counts: NDArray[np.int64]


class Estimate(NamedTuple):
    """Estimates for the n-grams of one length; for pruned ones, by the rest of the model."""

    probs: NDArray[np.float64]  # of the last word after the others
    shorter: NDArray[np.float64]  # the same if only this n-gram were pruned
    rest: NDArray[np.float64]  # back-off weight of the n-gram as a context


def build(
    sentences: Sentences,
    config: WordConfig,
    vocabulary: int,
    max_bytes: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> WordModel:
    """Estimate a model from a text.

    Args:
        sentences: the text.
        config: alphabet and order.
        vocabulary: maximum number of known words, the most frequent ones.
        max_bytes: of the model's file; the n-grams with the least gain are pruned until it fits.
        progress: called with a line of progress.

    Raises:
        LASError: the text has no sentence, or no model is that small.
    """
    words, stream = words_of(sentences, Characters(config.alphabet, config.normalizer), vocabulary)
    progress(f"{len(words):,} words, {np.mean(stream == UNKNOWN):.2%} of the text outside them")
    levels = count(stream, len(words) + FIRST, config.order)
    for n, level in enumerate(levels, start=1):
        progress(f"{len(level.words):,} n-grams of length {n}")
    keep = [np.ones(len(level.words), bool) for level in levels]
    if max_bytes is not None:
        keep = _fitting(levels, sum(map(len, words)) + len(words), max_bytes)
        progress(f"{sum(int(kept.sum()) for kept in keep):,} of them kept")
    return WordModel(config, words, tables(levels, keep))


def words_of(
    sentences: Sentences, text: Characters, vocabulary: int
) -> tuple[list[str], NDArray[np.int64]]:
    """The most frequent words, and the text as ids, with starts and ends of sentence.

    Of equally frequent words, those that occur first are known.

    Raises:
        LASError: there is no sentence.
    """
    if not len(sentences):
        raise LASError("no sentence to count words in")
    # Positions of spaces and of the ends of sentence, which the array does not have.
    ids = np.insert(sentences.ids, sentences.offsets[1:], EOS)
    breaks = np.flatnonzero((ids == sentences.space) | (ids == EOS))
    starts = np.concatenate([[0], breaks[:-1] + 1])
    hashes, first, inverse, counts = np.unique(
        hash_spans(ids, starts, breaks - starts),
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    counts[hashes == 0] = 0  # between two spaces
    kept = np.lexsort((first, -counts))[: min(vocabulary, int((counts > 0).sum()))]
    known = np.full(len(hashes), UNKNOWN)
    known[kept] = np.arange(len(kept)) + FIRST
    known[hashes == 0] = -1
    words = [text.decode(ids[starts[i] : breaks[i]].tolist()) for i in first[kept].tolist()]
    stream = known[inverse]
    places = np.flatnonzero(ids[breaks] == EOS) + 1  # after the last word of each sentence
    stream = np.insert(stream, np.repeat(places, 2), np.tile([END, START], len(places)))
    stream = np.concatenate([[START], stream[:-1]])
    return words, stream[stream >= 0]


def count(stream: NDArray[np.int64], vocabulary: int, order: int) -> list[Level]:
    """The n-grams of a text, the shortest first.

    Args:
        stream: of :func:`words_of`.
        vocabulary: the number of ids.
        order: the maximum length.
    """
    ids = np.arange(vocabulary)
    counts = np.bincount(stream, minlength=vocabulary)
    counts[START] = 0  # nothing predicts it
    levels = [Level(ids * 0, ids, ids * 0, counts)]
    place = np.arange(len(stream))
    within = place - np.maximum.accumulate(np.where(stream == START, place, 0))
    rows = stream  # of the n-grams that end at each place
    for n in range(2, order + 1):
        ends = np.flatnonzero(within >= n - 1)
        codes = rows[ends - 1] * vocabulary + stream[ends]
        order_ = np.argsort(codes)
        sorted_ = codes[order_]
        new = np.diff(sorted_, prepend=-1) != 0
        first = np.flatnonzero(new)
        longer = np.full(len(stream), -1)
        longer[ends[order_]] = np.cumsum(new) - 1
        found = sorted_[first]
        suffixes = rows[ends[order_[first]]]
        counts = np.diff(first, append=len(codes))
        levels.append(Level(found // vocabulary, found % vocabulary, suffixes, counts))
        rows = longer
    return levels


def estimate(levels: list[Level], keep: list[Mask]) -> list[Estimate]:
    """Modified Kneser-Ney estimates with the n-grams in ``keep``, which has all single words.

    A shorter context is used only where a longer one is not found. So an n-gram counts once for
    each longer one that is kept, and as often as it occurs for those that are pruned. At the start
    of a sentence there is no longer one.
    """
    weights = [levels[-1].counts]
    for n in range(len(levels) - 1, 0, -1):
        longer, level = levels[n], levels[n - 1]
        passed = np.where(keep[n], 1, weights[0])
        sums = np.bincount(longer.suffixes, passed, minlength=len(level.words)).astype(np.int64)
        weights.insert(0, np.where(sums > 0, sums, level.counts))
    probs: NDArray[np.float64] = np.zeros(0)
    found: list[Estimate] = []
    for n, (level, weight, kept) in enumerate(zip(levels, weights, keep, strict=True)):
        above = len(levels[n - 1].words) if n else 1
        totals = np.bincount(level.parents, weight, minlength=above)[level.parents]
        taken = (weight - discounts(weight)[np.minimum(weight, 3)]) / np.maximum(totals, 1)
        shares = np.where(kept, taken, 0.0)
        rest = (1.0 - np.bincount(level.parents, shares, minlength=above)).astype(np.float64)
        if n:
            lower = probs[level.suffixes]
            found[-1] = found[-1]._replace(rest=rest)
        else:
            lower = np.full(len(level.words), 1 / max(1, len(level.words) - 1))
            lower[START] = 0.0
        passed_on = rest[level.parents] * lower
        probs = shares + passed_on
        shorter = (rest[level.parents] + shares) * lower
        found.append(Estimate(probs, shorter, np.ones(len(probs))))
    return found


def tables(levels: list[Level], keep: list[Mask]) -> list[Table]:
    """The tables of the n-grams in ``keep``, which must have their contexts."""
    found = []
    rows = np.zeros(1, np.int64)
    with np.errstate(divide="ignore"):
        for level, kept, (probs, _, rest) in zip(levels, keep, estimate(levels, keep), strict=True):
            found.append(
                Table(
                    rows[level.parents[kept]],
                    level.words[kept],
                    quantise(np.log(probs[kept])),
                    quantise(np.log(rest[kept]), RAISED),
                )
            )
            rows = np.cumsum(kept) - 1
    return found


def _fitting(levels: list[Level], spelling: int, max_bytes: int) -> list[Mask]:
    """Masks of the n-grams with the largest gain that fit the size.

    The gain of an n-gram is its count times the change of log-probability if it is pruned (the
    weighted difference of Seymore & Rosenfeld 1996).

    Raises:
        LASError: even single words do not fit.
    """
    gains = [np.zeros(0)]
    for level, found in zip(levels[1:], estimate(levels, _all(levels))[1:], strict=True):
        gains.append(level.counts * np.log(found.probs / found.shorter))

    def kept(least: float) -> list[Mask]:
        masks = [gain >= least for gain in gains]
        masks[0] = np.ones(len(levels[0].words), bool)
        for n in range(len(levels) - 1, 1, -1):
            masks[n - 1][levels[n].parents[masks[n]]] = True
        return masks

    def size(masks: list[Mask]) -> int:
        counts = [int(mask.sum()) for mask in masks]
        one = id_bytes(counts[0])
        inner = sum(2 * many + many // 8 + 1 for many in counts[:-1])
        last = sum(one * many + many // 8 + 1 for many in counts[1:])
        return _HEADER + spelling + inner + counts[-1] + last

    if size(kept(np.inf)) > max_bytes:
        raise LASError(
            f"no word model of this text fits {max_bytes:,} bytes: allow more, or fewer words"
        )
    if size(kept(-np.inf)) <= max_bytes:
        return kept(-np.inf)
    highest = float(max(gain.max(initial=0.0) for gain in gains)) + 1.0
    return kept(lowest_limit(lambda least: size(kept(least)) <= max_bytes, highest))


def _all(levels: list[Level]) -> list[Mask]:
    return [np.ones(len(level.words), bool) for level in levels]
