"""The word model: its steps against plain Python, its folders, its command, damage."""

import functools
import gzip
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import run_main

from las.errors import LASError
from las.lm import arpa, loading
from las.lm.word_kneser_ney import build
from las.lm.word_ngram import CONFIG, WordConfig, WordModel
from las.text.characters import EOS, Characters
from tests.lm.test_arpa import STEP, log_prob, write
from tests.lm.test_word_kneser_ney import sentences

WORDS = ["A", "AA", "AAAA"]


def random_model(alphabet, seed, order=3):
    """n-grams -> (log10 p, log10 back-off) of some words; every third longer one is listed."""
    generator = torch.Generator().manual_seed(seed)
    names = [("<s>",), ("</s>",), ("<unk>",), *((word,) for word in WORDS)]
    listed = list(names)
    for _ in range(order - 1):
        names = [
            (*gram, *name)
            for gram in names
            for name in listed[1:6]
            if gram[-1] != "</s>" and torch.rand((), generator=generator) < 0.4
        ]
        listed = [*listed, *names]
    values = torch.randint(1, 60, (len(listed), 2), generator=generator).tolist()
    numbers = [(-a * STEP, -(b // 3) * STEP) for a, b in values]
    return dict(zip(listed, numbers, strict=True))


@functools.cache
def word_model(alphabet, seed):
    """A plain model and the same as it is used."""
    plain = random_model(alphabet, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.arpa"
        path.write_text(write(plain))
        return plain, arpa.read(path, alphabet)[0]


def score(plain, text, unknown):
    """What the words of a text add up to: those that a space or, with ``$``, the end follows."""
    *ended, rest = text.removesuffix("$").split(" ")
    words = [word for word in ended if word]
    if text.endswith("$"):
        words += [*([rest] if rest else []), "</s>"]
    history, total = ["<s>"], 0.0
    for word in words:
        listed = word if word in [*WORDS, "</s>"] else "<unk>"
        total += log_prob(plain, tuple(history[-2:]), listed) - unknown * (listed == "<unk>")
        history.append(listed)
    return total


@given(st.text("A B", max_size=12), st.integers(0, 3), st.sampled_from([0.0, 2.5]))
@settings(max_examples=60, deadline=None)
def test_steps_add_up_to_the_words_of_the_text(text, seed, unknown):
    plain, model = word_model(" AB", seed)
    state, total, read = model.start(1, 1), 0.0, EOS
    for at, token in enumerate([*model.text.encode(text), EOS]):
        scores, state = model.step(state, torch.tensor([[read]]), unknown)
        assert (scores <= 0).all() and (scores[0, 0] == 0).sum() >= len(model.text) - 2
        total += scores[0, 0, token].item()
        so_far = text[: at + 1] if token != EOS else text + "$"
        assert total == pytest.approx(score(plain, so_far, unknown), abs=1e-4)
        read = token


def test_select_takes_the_words_along():
    _, model = word_model(" AB", 1)
    texts = ["AA A", "A B "]
    state = model.start(1, 2)
    for tokens in [(EOS, EOS), *zip(*map(model.text.encode, texts), strict=True)]:
        _, state = model.step(state, torch.tensor([tokens]))
    index = torch.tensor([[1, 0, 1]])
    more, _ = model.step(model.select(state, index), torch.full((1, 3), 3))
    both, _ = model.step(state, torch.full((1, 2), 3))
    assert torch.equal(more[0], both[0, [1, 0, 1]])
    assert not torch.equal(both[0, 0], both[0, 1])


@given(st.lists(st.text("A B", min_size=6, max_size=6), min_size=2, max_size=6))
@settings(max_examples=20, deadline=None)
def test_what_stands_beside_a_hypothesis_changes_no_bit_of_its_scores(texts):
    _, model = word_model(" AB", 2)
    rows = torch.tensor([[EOS, *model.text.encode(text)] for text in texts])
    together = model.start(len(texts), 1)
    alone = [model.start(1, 1) for _ in texts]
    for tokens in rows.T:
        scores, together = model.step(together, tokens[:, None], 1.5)
        for row, state in enumerate(alone):
            expected, alone[row] = model.step(state, tokens[row].view(1, 1), 1.5)
            assert torch.equal(scores[row], expected[0])


# Folders

LEARNT = ["A B AA", "B", "AA AA A", "AA B A", "B A"]
THREE = WordConfig(alphabet=" AB", order=3)


def learnt():
    return build(sentences(LEARNT, Characters(" AB")), THREE, 50)


def test_a_folder_gives_the_same_model_back(tmp_path):
    model = learnt()
    model.save_pretrained(tmp_path / "w", {"sentences": "5"})
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == ["model.safetensors", CONFIG]
    back = WordModel.load(tmp_path / "w")
    assert (back.words, back.config) == (model.words, model.config)
    state, same = model.state_dict(), back.state_dict()
    assert state.keys() == same.keys() and all(torch.equal(state[k], same[k]) for k in state)
    with pytest.raises(LASError, match="by --words"):
        loading.load(tmp_path / "w")


def test_damaged_folders(tmp_path):
    def refused(match):
        with pytest.raises(LASError, match=match) as caught:
            WordModel.load(tmp_path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)

    refused("it has no words.yaml")
    learnt().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    stored = safetensors.torch.load_file(path)
    for name, tensor in stored.items():
        damaged = {
            "cut": tensor[..., :-1],
            "missing": None,
            "other": tensor.float(),
            "zero": torch.zeros_like(tensor),
        }
        for kind, value in damaged.items():
            if kind == "zero" and name.startswith(("log_probs", "backoffs")):
                continue  # another model, but a model
            changed = {k: v for k, v in stored.items() if k != name}
            changed |= {} if value is None else {name: value.contiguous()}
            safetensors.torch.save_file(changed, path)
            refused("not the words")
    (tmp_path / CONFIG).write_text("alphabet: ' XY'\norder: 3\n")
    safetensors.torch.save_file(stored, path)
    refused("not the words")
    (tmp_path / CONFIG).write_text("alphabet: XY\n")
    refused("alphabet")
    path.unlink()
    refused("it has no model.safetensors")


# The command


def test_the_command(monkeypatch, capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"LINE {'ABCDEFGH'[i % 8]} OF SOME TEXT\n" for i in range(64)) + "A1\n")
    options = ("--order", 2, "--dev-every", 4, "--vocabulary", 6, "--max-megabytes", 0.01)
    code, out, _ = run_main(monkeypatch, capsys, "lm", "words", text, tmp_path / "w", *options)
    assert code == 0 and "held-out sentences: perplexity" in out and "of the words unknown" in out
    assert "n-grams of length 2" in (tmp_path / "w/train.log").read_text()
    assert WordModel.load(tmp_path / "w").config.order == 2
    model = tmp_path / "m.arpa.gz"
    model.write_bytes(gzip.compress(write(random_model(" A", 1)).encode()))
    code, out, _ = run_main(monkeypatch, capsys, "lm", "words", model, tmp_path / "a")
    assert code == 0 and "n-grams of length 1 to 3: 6, " in out
    assert WordModel.load(tmp_path / "a").words == sorted(WORDS)
    options = ("--max-megabytes", 1)
    code, _, err = run_main(monkeypatch, capsys, "lm", "words", model, tmp_path / "b", *options)
    assert code != 0 and "prune it" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--dev-every", "1"), "hold out every"),
        (("--alphabet", "AB"), "alphabet"),
        (("--max-megabytes", "0.001"), "fits 1,000 bytes"),
    ],
)
def test_options_that_cannot_be(monkeypatch, capsys, tmp_path, options, match):
    text = tmp_path / "text.txt"
    text.write_text("AA\nAAB\n")
    code, _, err = run_main(monkeypatch, capsys, "lm", "words", text, tmp_path / "w", *options)
    assert code != 0 and match in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "w").exists()
