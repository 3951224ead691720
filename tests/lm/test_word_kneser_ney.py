"""Counting words: modified Kneser-Ney against dictionaries, distributions, and models that fit."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.errors import LASError
from las.lm.corpus import Sentences
from las.lm.word_kneser_ney import build, count, estimate, words_of
from las.lm.word_ngram import END, FIRST, START, UNKNOWN, WordConfig
from las.lm.word_perplexity import measure
from las.text.characters import Characters

TEXT = Characters(" ABC")
CONFIG = WordConfig(alphabet=" ABC")
lines = st.lists(
    st.lists(st.sampled_from(["A", "B", "AB", "C", "CAB"]), min_size=1, max_size=6).map(" ".join),
    min_size=1,
    max_size=12,
)


def sentences(texts, text=TEXT):
    ids = [text.encode(line) for line in texts]
    offsets = np.cumsum([0, *map(len, ids)])
    return Sentences(np.array(list(itertools.chain(*ids)), np.uint8), offsets, text.encode(" ")[0])


def known(texts, vocabulary):
    """The most frequent words, of equals the first, and sentences as ids: by loops."""
    counts = Counter(word for line in texts for word in line.split())
    words = [word for word, _ in counts.most_common(vocabulary)]
    ids = {word: i for i, word in enumerate(words, start=FIRST)}
    return words, [[ids.get(word, UNKNOWN) for word in line.split()] for line in texts]


def oracle(texts, vocabulary, order, left_out=()):
    """p(w | context) of interpolated modified Kneser-Ney, from dictionaries."""
    words, rows = known(texts, vocabulary)
    counts = [Counter() for _ in range(order + 1)]
    for row in rows:
        ids = [START, *row, END]
        for end in range(1, len(ids)):
            for n in range(1, min(order, end + 1) + 1):
                counts[n][tuple(ids[end - n + 1 : end + 1])] += 1
    weights = [Counter(count) for count in counts]
    for n in range(order - 1, 0, -1):
        passed = Counter()
        for gram, weight in weights[n + 1].items():
            passed[gram[1:]] += weight if gram in left_out else 1
        weights[n].update({gram: passed[gram] - weights[n][gram] for gram in passed})

    def discount(n, weight):
        of = Counter(weights[n].values())
        if not of[1] * of[2] * of[3]:
            return (0.5, 0.75, 0.75)[min(weight, 3) - 1]
        y = of[1] / (of[1] + 2 * of[2])
        raw = [k - (k + 1) * y * of[k + 1] / of[k] for k in (1, 2, 3)]
        return min(max(raw[min(weight, 3) - 1], 0.05), (0.95, 1.9, 2.9)[min(weight, 3) - 1])

    def probability(context, w, n):
        if n == 0:
            return 1 / (len(words) + FIRST - 1)  # nothing predicts the start
        context = context[len(context) - n + 1 :]
        grams = {g: c for g, c in weights[n].items() if g[:-1] == context}
        total = sum(grams.values())
        lower = probability(context, w, n - 1)
        if not total:
            return lower
        shares = {g: (c - discount(n, c)) / total for g, c in grams.items() if g not in left_out}
        return shares.get((*context, w), 0.0) + (1 - sum(shares.values())) * lower

    return lambda history, w: probability(history, w, min(order, len(history) + 1))


@given(lines, st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_words_are_those_of_the_text(texts, vocabulary):
    words, stream = words_of(sentences(texts), TEXT, vocabulary)
    expected, rows = known(texts, vocabulary)
    assert words == expected
    assert stream.tolist() == [i for row in rows for i in (START, *row, END)]


def grams_of(levels):
    """Every n-gram of each level, as ids."""
    found = [[(word,) for word in levels[0].words.tolist()]]
    for level in levels[1:]:
        rows = zip(level.parents.tolist(), level.words.tolist(), strict=True)
        found.append([(*found[-1][parent], word) for parent, word in rows])
    return found


@given(lines, st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_estimates_are_those_of_kneser_and_ney(texts, vocabulary, order, seed):
    _, stream = words_of(sentences(texts), TEXT, vocabulary)
    levels = count(stream, int(max(stream.max(), UNKNOWN)) + 1, order)
    grams = grams_of(levels)
    # Any n-grams may be left out that are no context of others.
    random = np.random.default_rng(seed)
    keep = [random.random(len(level.words)) < (0.6 if seed else 1) for level in levels]
    keep[0][:] = True
    for n in range(order - 1, 0, -1):
        keep[n - 1][levels[n].parents[keep[n]]] = True
    left_out = {
        g
        for some, kept in zip(grams, keep, strict=True)
        for g, k in zip(some, kept, strict=True)
        if not k
    }
    expected = oracle(texts, vocabulary, order, left_out)
    for some, found in zip(grams, estimate(levels, keep), strict=True):
        for gram, prob in zip(some, found.probs.tolist(), strict=True):
            if gram[-1] != START:
                assert prob == pytest.approx(expected(gram[:-1], gram[-1]), rel=1e-9)


def walk(model, ids):
    """Probabilities [U + 1, V] of every word after the start and after each id."""
    every = torch.arange(len(model.words) + FIRST)
    nodes = model.start(1, 1).nodes[:, 0]
    rows = []
    for id in [*ids, None]:
        rows.append(model.read(nodes.expand(len(every), -1), every)[0].exp())
        if id is not None:
            _, nodes = model.read(nodes, torch.tensor([id]))
    return torch.stack(rows)


histories = st.lists(st.integers(UNKNOWN, FIRST + 3), max_size=5)


@given(lines, st.integers(1, 6), st.integers(1, 4), histories)
@settings(max_examples=40, deadline=None)
def test_models_are_distributions_after_every_context(texts, vocabulary, order, history):
    config = CONFIG.model_copy(update={"order": order})
    model = build(sentences(texts), config, vocabulary)
    size = len(model.words) + FIRST
    history = [id for id in history if id < size]
    expected = oracle(texts, vocabulary, order)
    for at, row in enumerate(walk(model, history)):
        assert row[START] < 1e-6
        assert row.sum().item() == pytest.approx(1, abs=0.1)  # stored to 4 % each
        before = (START, *history[:at])
        exact = [expected(before, w) for w in range(END, size)]
        assert sum(exact) == pytest.approx(1)
        assert row[END:].tolist() == pytest.approx(exact, rel=0.045 * (order + 1))


def random_text(seed=0, count=300):
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("ABC"), 6)) for _ in range(40)]
    follows = {word: rng.choice(words, 4) for word in words}
    found = []
    for _ in range(count):
        row = [rng.choice(words)]
        while len(row) < 6:
            row.append(rng.choice(follows[row[-1]]))
        found.append(" ".join(row))
    return found


def test_a_limit_of_bytes_is_kept_and_what_gains_most_stays(tmp_path):
    texts = random_text()
    sizes, nats = [], []
    for limit in (None, 4_000, 3_000):
        model = build(sentences(texts), CONFIG, 100, limit)
        nats.append(measure(model, sentences(texts)).nats)
        model.save_pretrained(tmp_path / str(limit))
        sizes.append((tmp_path / str(limit) / "model.safetensors").stat().st_size)
        assert limit is None or 0.5 * limit < sizes[-1] <= limit
    assert sizes[0] > sizes[1] > sizes[2]
    one = build(sentences(texts), CONFIG.model_copy(update={"order": 1}), 100)
    assert nats[0] < nats[1] < nats[2] < measure(one, sentences(texts)).nats
    with pytest.raises(LASError, match="fits 500 bytes"):
        build(sentences(texts), CONFIG, 100, 500)


def test_no_text():
    with pytest.raises(LASError, match="no sentence"):
        build(sentences([]), CONFIG, 5)


def test_perplexity_is_that_of_the_words():
    texts = ["A B CAB", "B", "AB AB A"]
    model = build(sentences(texts), CONFIG, 3)
    held_out = ["CAB A", "B C AB A", "A"]
    ids = {word: i for i, word in enumerate(model.words, start=FIRST)}
    nats = 0.0
    for line in held_out:
        row = [*(ids.get(word, UNKNOWN) for word in line.split()), END]
        probs = walk(model, row[:-1])
        nats -= sum(math.log(p[w]) for p, w in zip(probs.tolist(), row, strict=True))
    found = measure(model, sentences(held_out))
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert (found.sentences, found.words) == (3, 7)
    assert found.unknown == sum(w not in ids for line in held_out for w in line.split())
    assert f"{found.unknown / 7:.2%}" in str(found)
