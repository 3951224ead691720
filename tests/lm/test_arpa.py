"""ARPA files: what they say is what is read, and damage is one line that names the file."""

import gzip
import lzma
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.errors import LASError
from las.lm import arpa
from las.lm.word_ngram import END, FIRST, STEPS, UNKNOWN

ALPHABET = " 'ABC"
NAMES = ["<s>", "</s>", "<unk>", "A", "B", "AB", "C'A"]
STEP = 1 / STEPS / math.log(10)  # what is stored exactly, in powers of ten


@st.composite
def models(draw, order=3):
    """n-grams -> (log10 p, log10 back-off); contexts are listed, shorter n-grams need not be."""
    numbers = st.tuples(st.integers(1, 200), st.integers(-50, 100))
    found = {(name,): draw(numbers) for name in NAMES}
    grams = st.lists(st.sampled_from(NAMES), min_size=2, max_size=order).map(tuple)
    for gram in draw(st.lists(grams, max_size=15)):
        if "<s>" not in gram[1:] and "</s>" not in gram[:-1]:
            for n in range(2, len(gram) + 1):
                found.setdefault(gram[:n], draw(numbers))
    return {gram: (-a * STEP, -b * STEP) for gram, (a, b) in found.items()}


def write(model, order=3):
    """The text of a model."""
    levels = [[g for g in sorted(model) if len(g) == n] for n in range(1, order + 1)]
    lines = ["\\data\\", *(f"ngram {n}={len(g)}" for n, g in enumerate(levels, start=1)), ""]
    for n, grams in enumerate(levels, start=1):
        lines.append(f"\\{n}-grams:")
        for gram in grams:
            prob, backoff = model[gram]
            end = f"\t{backoff:.9g}" if n < order and backoff else ""
            lines.append(f"{prob:.9g}\t{' '.join(gram)}{end}")
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])


def log_prob(model, context, word):
    """Nats of a word after a context, as the format defines it."""
    if (*context, word) in model:
        return model[*context, word][0] * math.log(10)
    backoff = model.get(context, (0, 0))[1] * math.log(10)
    return backoff + log_prob(model, context[1:], word)


def read(tmp_path, text, name="m.arpa"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return arpa.read(path, ALPHABET)[0]


@given(models(), st.lists(st.sampled_from([*NAMES[2:], "OTHER"]), max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, model, sentence):
    read_back = read(tmp_path_factory.mktemp("arpa"), write(model))
    assert read_back.words == sorted(NAMES[3:])
    ids = {"<s>": 0, "</s>": END} | {w: i for i, w in enumerate(read_back.words, start=FIRST)}
    nodes = read_back.start(1, 1).nodes[:, 0]
    history = ("<s>",)
    for word in [*sentence, "</s>"]:
        listed = word if word in ids else "<unk>"
        found, nodes = read_back.read(nodes, torch.tensor([ids.get(word, UNKNOWN)]))
        assert found.item() == pytest.approx(log_prob(model, history[-2:], listed), abs=1e-4)
        history = (*history, listed)


TEXT = """made by hand

\\data\\
ngram 1=6
ngram 2=2

\\1-grams:
-99 <s> -0.3
-1 </s>
-2 <unk>
-0.5 ab -0.2
-0.6 Ab
-0.7 x-ray

\\2-grams:
-0.1 <s> ab
-0.2 ab </s>

\\end\\
"""


@pytest.mark.parametrize("name", ["m.arpa", "m.arpa.gz", "m.ARPA.xz"])
def test_files_of_other_tools(tmp_path, name):
    data = TEXT.encode()
    packed = gzip.compress(data) if "gz" in name else lzma.compress(data) if "xz" in name else data
    path = tmp_path / name
    path.write_bytes(packed)
    assert arpa.is_arpa(path) and not arpa.is_arpa(tmp_path / "m.txt")
    model, skipped = arpa.read(path, ALPHABET)
    # Words are folded; another case of one, and what the alphabet cannot write, are left out.
    assert (model.words, model.config.order, skipped) == (["AB"], 2, 2)
    sentence = torch.tensor([FIRST])
    found, nodes = model.read(model.start(1, 1).nodes[:, 0], sentence)
    assert found.item() == pytest.approx(-0.1 * math.log(10), abs=0.05)
    found, _ = model.read(nodes, torch.tensor([END]))
    assert found.item() == pytest.approx(-0.2 * math.log(10), abs=0.05)


def test_a_model_without_unknown_words_has_the_rarest_probability(tmp_path):
    text = TEXT.replace("-2 <unk>\n", "").replace("1=6", "1=5")
    model = read(tmp_path, text)
    nodes = model.start(1, 1).nodes[:, 0]
    found, _ = model.read(nodes, torch.tensor([UNKNOWN]))
    assert found.item() == pytest.approx((-0.3 - 0.5) * math.log(10), abs=0.1)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("\\data\\", "data", "no line"),
        ("ngram 2=2", "ngram 2=3", "line 19: expected a number, 2 words"),
        ("ngram 2=2", "ngram 2=1", "line 17: expected \\end\\"),
        ("ngram 1=6", "ngram 1=5", "line 13: expected \\2-grams:"),
        ("ngram 1=6", "ngram 1=x", "line 4: expected the number"),
        ("-0.1 <s>", "zero <s>", "line 16"),
        ("-0.1 <s>", "nan <s>", "line 16: nan is not the logarithm"),
        ("-0.1 <s>", "0.1 <s>", "line 16: 0.1 is not the logarithm"),
        ("<s> ab", "<s> abc", "line 16: 'abc' is not among"),
        ("ab </s>", "<s> ab", "occurs twice"),
        ("-0.6 Ab", "-0.6 ab", "line 12: 'ab' occurs twice"),
        ("\\end\\", "", "expected \\end\\"),
    ],
)
def test_damage_is_named(tmp_path, old, new, match):
    assert old in TEXT
    with pytest.raises(LASError, match=re.escape(match)) as caught:
        read(tmp_path, TEXT.replace(old, new, 1))
    assert str(tmp_path / "m.arpa") in str(caught.value) and "\n" not in str(caught.value)


def test_a_context_that_is_not_listed(tmp_path):
    text = TEXT.replace("ngram 2=2", "ngram 2=2\nngram 3=1")
    text = text.replace("\\end\\", "\\3-grams:\n-1 ab ab ab\n\n\\end\\")
    with pytest.raises(LASError, match=r"1 n-grams of length 3 have a context"):
        read(tmp_path, text)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_damage_is_one_line_that_names_the_file(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "m.arpa"
    path = data.draw(st.sampled_from([path, path.with_suffix(".arpa.gz")]))
    whole = TEXT.encode() if path.suffix == ".arpa" else gzip.compress(TEXT.encode())
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.sampled_from(["cut", "changed", "inserted"]))
    byte = data.draw(st.binary(min_size=1, max_size=3))
    damaged = {
        "cut": whole[:at],
        "changed": whole[:at] + byte + whole[at + 1 :],
        "inserted": whole[:at] + byte + whole[at:],
    }
    path.write_bytes(damaged[cut])
    try:
        arpa.read(path, ALPHABET)  # it may be none that shows
    except LASError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_a_missing_file(tmp_path):
    with pytest.raises(LASError, match=r"none\.arpa: cannot read the model"):
        arpa.read(tmp_path / "none.arpa", ALPHABET)
