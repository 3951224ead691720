"""The n-gram model: counts against a plain oracle, distributions, folders, damage."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import run_main

from las.errors import LASError
from las.lm import loading
from las.lm.config import LMModelConfig
from las.lm.corpus import Sentences
from las.lm.kneser_ney import build
from las.lm.lstm import LanguageModel, measure
from las.lm.ngram import CONFIG, NgramConfig, NgramModel, pack, population, quantise, unpack
from las.text.characters import BLANK, EOS, Characters

ALPHABET = " AB"
TEXT = Characters(ALPHABET)
texts = st.lists(st.text("AB ", min_size=1, max_size=12), min_size=1, max_size=12)


def sentences(lines, text=TEXT):
    ids = [text.encode(line) for line in lines]
    offsets = np.cumsum([0, *map(len, ids)])
    return Sentences(np.array(list(itertools.chain(*ids)), np.uint8), offsets, text.encode(" ")[0])


def model(lines, order=4, **options):
    return build(sentences(lines), NgramConfig(alphabet=ALPHABET, order=order), **options)


def oracle(lines, order):
    """p(w | context) of interpolated modified Kneser-Ney, from dictionaries."""
    counts = [Counter() for _ in range(order + 1)]
    for line in lines:
        ids = [EOS, *TEXT.encode(line), EOS]
        for end in range(1, len(ids)):
            for n in range(1, order + 1):
                if end - n + 1 >= 0:
                    counts[n][tuple(ids[end - n + 1 : end + 1])] += 1
    weights = [Counter(), *(Counter(count) for count in counts[1:])]
    for n in range(1, order):
        preceded = Counter(gram[1:] for gram in counts[n + 1])
        weights[n] |= preceded  # of those that no id precedes, the count stays
        for gram, contexts in preceded.items():
            weights[n][gram] = contexts

    def discount(n, weight):
        of = Counter(weights[n].values())
        if n == 1:
            return 0.0
        if not of[1] * of[2] * of[3]:
            return (0.5, 0.75, 0.75)[min(weight, 3) - 1]
        y = of[1] / (of[1] + 2 * of[2])
        raw = [k - (k + 1) * y * of[k + 1] / of[k] for k in (1, 2, 3)]
        return min(max(raw[min(weight, 3) - 1], 0.05), (0.95, 1.9, 2.9)[min(weight, 3) - 1])

    def probability(context, w, n):
        if n == 0:
            return 1 / (len(TEXT) - 1)
        context = context[len(context) - n + 1 :]
        lower = probability(context, w, n - 1)
        grams = {g: c for g, c in weights[n].items() if g[:-1] == context}
        total = sum(grams.values())
        if not total:
            return lower
        shares = {g: (c - discount(n, c)) / total for g, c in grams.items()}
        return shares.get((*context, w), 0.0) + (1 - sum(shares.values())) * lower

    return lambda history, w: probability(history, w, min(order, len(history) + 1))


def walk(model, ids):
    """Log-probabilities [U + 1, V] of stepping through ids."""
    state, rows = model.start(1, 1), []
    for token in [EOS, *ids]:
        log_probs, state = model.step(state, torch.tensor([[token]]))
        rows.append(log_probs[0, 0])
    return torch.stack(rows)


@given(texts, st.text("AB ", max_size=8), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_probabilities_are_those_of_kneser_and_ney(lines, history, order):
    expected = oracle(lines, order)
    ids = TEXT.encode(history)
    for at, row in enumerate(walk(model(lines, order), ids)):
        before = (EOS, *ids[:at])
        for w in range(EOS, len(TEXT)):
            # Shares are stored to 2.5 %, and 1e-5 is kept for what was never seen.
            assert row[w].exp().item() == pytest.approx(expected(before, w), rel=0.12, abs=0.02)


@given(texts, st.text("AB ", max_size=8), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_each_step_is_a_distribution_without_blank(lines, history, order):
    rows = walk(model(lines, order), TEXT.encode(history))
    assert (rows[:, BLANK] == -math.inf).all()
    assert rows[:, EOS:].isfinite().all()  # nothing is impossible
    torch.testing.assert_close(rows.exp().sum(-1), torch.ones(len(rows)))


def test_what_was_learnt_is_likely_and_ends():
    learnt = model(["ABBA BAB"] * 3 + ["AB", "BA"], order=8)
    ids = TEXT.encode("ABBA BAB")
    rows = walk(learnt, ids).exp()
    # Three of five sentences go on so; discounts leave a part to others.
    assert all(rows[at, w] > 0.4 for at, w in enumerate([*ids, EOS]))
    assert rows[len(ids), EOS] > rows[1, EOS]


def test_losses_are_those_of_the_steps():
    learnt = model(["ABBA", "BAB A", "A"], order=5)
    lines = ["AB", "BABBA A", "B"]
    ids = [TEXT.encode(line) for line in lines]
    lengths = torch.tensor([len(x) for x in ids])
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(x) for x in ids], batch_first=True)
    expected = [
        -sum(row[w].item() for row, w in zip(walk(learnt, x), [*x, EOS], strict=True)) for x in ids
    ]
    torch.testing.assert_close(learnt.losses(tokens, lengths), torch.tensor(expected))
    total = measure(learnt, sentences(lines))
    assert total.nats == pytest.approx(sum(expected), rel=1e-5)
    assert (total.sentences, total.characters, total.words) == (3, 10, 4)


def test_select_takes_the_histories_along():
    learnt = model(["ABBA", "BAB A", "A"], order=5)
    tokens = torch.tensor([[[2, 3, 4], [4, 4, 3]]])  # [B, N, U]
    state = learnt.start(1, 2)
    for token in [torch.full((1, 2), EOS), *tokens.unbind(-1)]:
        _, state = learnt.step(state, token)
    log_probs, _ = learnt.step(
        learnt.select(state, torch.tensor([[1, 0, 1]])), torch.full((1, 3), 3)
    )
    for n, history in enumerate((1, 0, 1)):
        expected = walk(learnt, [*tokens[0, history].tolist(), 3])[-1]
        torch.testing.assert_close(log_probs[0, n], expected)


def test_rare_ngrams_are_left_out():
    lines = ["ABBA", "ABBA", "BAB A"]
    whole, pruned = model(lines, order=5), model(lines, order=5, least=(1, 2))
    assert len(pruned.shares) < len(whole.shares)
    seen = walk(pruned, TEXT.encode("BAB"))  # only its shorter parts were seen twice
    torch.testing.assert_close(seen.exp().sum(-1), torch.ones(4))
    assert torch.equal(model(lines, order=5, least=(1, 2, 1)).shares, pruned.shares)


def test_a_limit_of_bytes_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("AAB"), 6)) for _ in range(40)]
    lines = [" ".join(rng.choice(words, 5)) for _ in range(300)]
    sizes, nats = [], []
    for limit in (None, 4_000, 2_000):
        made = model(lines, order=8, max_bytes=limit)
        nats.append(measure(made, sentences(lines)).nats)
        made.save_pretrained(tmp_path / str(limit))
        sizes.append((tmp_path / str(limit) / "model.safetensors").stat().st_size)
        assert limit is None or 0.3 * limit < sizes[-1] <= limit
    assert sizes[0] > sizes[1] > sizes[2]
    assert nats[0] < 1.01 * nats[1]  # whose discounts are others
    assert nats[1] < nats[2] < measure(model(lines, order=1), sentences(lines)).nats


def test_what_helps_most_is_kept(tmp_path):
    """More than by counts alone: a frequent n-gram that its shorter one predicts is no help."""
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("AAB"), 5)) for _ in range(60)]
    lines = [" ".join(rng.choice(words, 5, p=rng.dirichlet(np.ones(60)))) for _ in range(400)]

    def size(made):
        made.save_pretrained(tmp_path)
        return (tmp_path / "model.safetensors").stat().st_size

    limit = 3_000
    frequent = (model(lines, order=8, least=(1, least)) for least in range(2, 400))
    by_count = next(made for made in frequent if size(made) <= limit)
    by_gain = model(lines, order=8, max_bytes=limit)
    text = sentences(lines)
    assert measure(by_gain, text).nats < 0.99 * measure(by_count, text).nats


def test_a_folder_gives_the_same_model_back(tmp_path):
    learnt = model(["ABBA", "BAB A", "A"], order=5)
    learnt.save_pretrained(tmp_path / "lm", {"sentences": "3"})
    assert sorted(p.name for p in (tmp_path / "lm").iterdir()) == ["model.safetensors", CONFIG]
    back = loading.load(tmp_path / "lm")
    assert isinstance(back, NgramModel)
    ids = TEXT.encode("ABA BB")
    assert torch.equal(walk(back, ids), walk(learnt, ids))
    torch.manual_seed(0)
    LanguageModel(LMModelConfig(alphabet=ALPHABET, width=4)).save_pretrained(tmp_path / "lstm")
    assert isinstance(loading.load(tmp_path / "lstm"), LanguageModel)
    (tmp_path / "lm/lm.yaml").write_text("width: 4")
    with pytest.raises(LASError, match="both"):
        loading.load(tmp_path / "lm")


def test_damaged_folders(tmp_path):
    learnt = model(["ABBA", "BAB A", "A"], order=5)

    def refused(match):
        with pytest.raises(LASError, match=match) as caught:
            loading.load(tmp_path / "lm")
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)

    learnt.save_pretrained(tmp_path / "lm")
    path = tmp_path / "lm/model.safetensors"
    stored = safetensors.torch.load_file(path)
    for name, value in (
        ("shares", stored["shares"][:-1]),
        ("followers", stored["followers"][:-1]),
        ("inner", stored["inner"][:-1]),
        ("nodes", stored["nodes"] + 999),
    ):
        safetensors.torch.save_file({**stored, name: value}, path)
        refused("not the n-grams")
    del stored["inner"]
    safetensors.torch.save_file(stored, path)
    refused("not the n-grams")
    path.write_bytes(b"damaged")
    refused("corrupt")
    path.unlink()
    refused("it has no model.safetensors")


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=40))
def test_population_counts_bits(words):
    for kind in (torch.int32, torch.int64):
        counted = population(torch.tensor(words, dtype=kind)).tolist()
        assert counted == [word.bit_count() for word in words]


@given(st.lists(st.booleans(), max_size=40))
def test_packing_loses_nothing(bits):
    packed = pack(torch.tensor(bits, dtype=torch.bool))
    assert len(packed) == math.ceil(len(bits) / 8)
    assert unpack(packed, len(bits)).tolist() == bits


def test_quantised_shares_are_near():
    shares = torch.logspace(-5, 0, 500)
    back = torch.exp(-quantise(shares).float() / 20)
    assert ((back / shares).log().abs() <= 0.0251).all()


def test_the_command(monkeypatch, capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"LINE {'ABCDEFGH'[i % 8]} OF SOME TEXT\n" for i in range(64)) + "A1\n")
    folder = tmp_path / "lm"
    code, out, _ = run_main(
        monkeypatch, capsys, "lm", "ngram", text, folder, "--order", 6, "--dev-every", 4
    )
    assert code == 0 and "held-out sentences: perplexity" in out and "1 with characters" in out
    assert "n-grams of length 6" in (folder / "train.log").read_text()
    code, out, _ = run_main(monkeypatch, capsys, "lm", "score", folder, text)
    assert code == 0 and "perplexity per character: 1." in out


@pytest.mark.parametrize(
    "options, match",
    [
        (("--least", "1,x"), "give counts"),
        (("--least", "0"), "give counts"),
        (("--dev-every", "1"), "hold out every"),
        (("--alphabet", "AA"), "repeats"),
        (("--max-megabytes", "0.001"), "fits 1,000 bytes"),
    ],
)
def test_options_that_cannot_be(monkeypatch, capsys, tmp_path, options, match):
    text = tmp_path / "text.txt"
    text.write_text("AA\nAAA\n")
    code, _, err = run_main(monkeypatch, capsys, "lm", "ngram", text, tmp_path / "lm", *options)
    assert code != 0 and match in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "lm").exists()
