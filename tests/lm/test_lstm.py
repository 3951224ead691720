"""The language model: distributions, steps of a search, folders, perplexity."""

import itertools
import json
import math
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import small_model

from las.errors import LASError
from las.lm.config import LMModelConfig
from las.lm.corpus import read
from las.lm.lstm import LanguageModel, Perplexity, measure
from las.model.folder import read_info
from las.model.las import LAS
from las.text.characters import BLANK, EOS

TINY = LMModelConfig(alphabet=" AB", layers=2, width=7, embedding=3, dropout=0.5)
V = 5


@pytest.fixture
def model():
    torch.manual_seed(3)
    return LanguageModel(TINY).eval()


def walk(model, tokens):
    """Log-probabilities [B, N, U + 1, V] of stepping through tokens [B, N, U]."""
    state = model.start(*tokens.shape[:2])
    rows = []
    for token in [torch.full_like(tokens[..., 0], EOS), *tokens.unbind(-1)]:
        log_probs, state = model.step(state, token)
        rows.append(log_probs)
    return torch.stack(rows, 2)


def test_each_step_is_a_distribution_without_blank(model):
    log_probs = model(torch.tensor([[2, 3, 4]]))
    assert log_probs.shape == (1, 4, V)
    assert log_probs.dtype == torch.float32
    assert (log_probs[..., BLANK] == -math.inf).all()
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(1, 4))


def test_no_position_sees_what_follows(model):
    a = model(torch.tensor([[2, 3, 4, 2]]))
    b = model(torch.tensor([[2, 3, 3, 4]]))
    assert torch.equal(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3], b[:, 3])


def test_steps_are_the_whole_sequence(model):
    tokens = torch.randint(2, V, (2, 3, 6))
    whole = model(tokens.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(walk(model, tokens), whole, atol=1e-6, rtol=1e-5)


def test_steps_keep_no_graph_and_leave_the_state_alone(model):
    state = model.start(1, 2)
    first, after = model.step(state, torch.full((1, 2), EOS))
    again, _ = model.step(state, torch.full((1, 2), EOS))
    assert torch.equal(first, again) and not first.requires_grad
    assert not after.hidden.requires_grad and (state.hidden == 0).all()


def test_select_takes_the_histories_along(model):
    tokens = torch.randint(2, V, (2, 3, 4))
    index = torch.tensor([[2, 0, 0, 1], [1, 1, 2, 0]])  # more hypotheses than before
    state = model.start(2, 3)
    for token in [torch.full((2, 3), EOS), *tokens.unbind(-1)]:
        _, state = model.step(state, token)
    after, _ = model.step(model.select(state, index), torch.full((2, 4), 3))
    histories = tokens.gather(1, index[..., None].expand(-1, -1, 4))
    expected = walk(model, torch.cat([histories, torch.full((2, 4, 1), 3)], -1))[:, :, -1]
    torch.testing.assert_close(after, expected, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(after[0, 0], after[0, 3])


@settings(max_examples=20)
@given(data=st.data())
def test_a_hypothesis_does_not_depend_on_its_company(data):
    torch.manual_seed(3)
    model = LanguageModel(TINY).eval()
    B, N, U = (data.draw(st.integers(1, most)) for most in (4, 4, 6))
    tokens = torch.tensor(
        data.draw(st.lists(st.integers(1, V - 1), min_size=B * N * U, max_size=B * N * U))
    ).view(B, N, U)
    together = walk(model, tokens)
    for b, n in itertools.product(range(B), range(N)):
        alone = walk(model, tokens[b : b + 1, n : n + 1])[0, 0]
        torch.testing.assert_close(together[b, n], alone, atol=1e-6, rtol=1e-5)


def test_padding_does_not_enter_the_losses(model):
    tokens = torch.tensor([[2, 3, 4, 4], [3, 4, 1, 1], [3, 4, 2, 0]])
    losses = model.losses(tokens, torch.tensor([4, 2, 2]))
    alone = model.losses(torch.tensor([[3, 4]]), torch.tensor([2]))
    torch.testing.assert_close(losses[1:], alone.expand(2))
    assert losses[0] > 0


@torch.no_grad()
def test_probabilities_of_all_sentences_sum_to_less_than_one(model):
    """To one in the limit: what is missing are the longer sentences."""
    total, longer = 0.0, 1.0
    for length in range(6):
        texts = torch.tensor(list(itertools.product(range(2, V), repeat=length)), dtype=torch.long)
        texts = texts.view(3**length, length)
        total += float((-model.losses(texts, torch.full((len(texts),), length))).exp().sum())
        ends = model(texts)[:, -1, EOS].exp()
        reach = model(texts)[:, :-1].gather(2, texts[..., None])[..., 0].sum(1).exp()
        longer = float((reach * (1 - ends)).sum())
        assert total + longer == pytest.approx(1.0, abs=1e-5)
    assert total < 1


# --- perplexity -----------------------------------------------------------------------------


def test_perplexity_by_hand(tmp_path):
    """All weights zero: each of the 4 predictable ids has a quarter, whatever came before."""
    model = LanguageModel(TINY)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    path = tmp_path / "text.txt"
    path.write_text("AB A\nB\nBAA B A\n")
    sentences = read(path, model.text, 100).train
    assert (sentences.characters, sentences.words, len(sentences)) == (12, 6, 3)
    result = measure(model, sentences)
    assert model.training  # the mode is left as it was
    assert result.nats == pytest.approx(15 * math.log(4), rel=1e-6)
    assert result.per_character == pytest.approx(4.0)
    assert result.bits == pytest.approx(2.0)
    assert result.per_word == pytest.approx(4 ** (15 / 9))


@torch.no_grad()
def test_perplexity_is_of_the_models_own_predictions(model, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("AB A\nB\n")
    result = measure(model, read(path, model.text, 100).train, batch_characters=1)
    nats = 0.0
    for text in ("AB A", "B"):
        ids = model.text.encode(text)
        log_probs = model(torch.tensor([ids]))[0]
        nats -= sum(float(log_probs[i, k]) for i, k in enumerate([*ids, EOS]))
    assert result.nats == pytest.approx(nats, rel=1e-6)


def test_perplexity_that_overflows_is_infinite():
    assert Perplexity(1e6, 1, 1000, 1).per_word == math.inf


# --- folders --------------------------------------------------------------------------------


def test_a_folder_gives_the_same_model_back(model, tmp_path):
    folder = tmp_path / "lm"
    model.save_pretrained(folder, {"licence": "none"})
    assert sorted(p.name for p in folder.iterdir()) == ["lm.yaml", "model.safetensors"]
    back = LanguageModel.load(folder)
    tokens = torch.randint(2, V, (2, 5))
    assert torch.equal(back(tokens), model(tokens))
    assert back.config == TINY and not back.training
    assert read_info(folder) == {"licence": "none"}


def refused(folder, *words):
    with pytest.raises(LASError) as caught:
        LanguageModel.load(folder)
    message = str(caught.value)
    assert str(folder) in message and len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_folders_that_are_no_language_models(model, tmp_path):
    refused(tmp_path / "none", "no such language model folder")
    recogniser = tmp_path / "recogniser"
    small_model().save_pretrained(recogniser)
    refused(recogniser, "not a language model folder", "lm.yaml")
    folder = tmp_path / "lm"
    model.save_pretrained(folder)
    with pytest.raises(LASError, match=r"not a model folder: it has no config\.yaml"):
        LAS.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, pickle.dumps({"a": 1}), b"\x08" + b"\0" * 7 + b"not json"]
)
def test_corrupt_weights(model, tmp_path, content):
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(tmp_path, "corrupt")


def test_weights_cut_off(model, tmp_path):
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    refused(tmp_path, "corrupt")


def test_weights_of_another_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "model.safetensors")
    refused(tmp_path, "another model than lm.yaml")
    LanguageModel(TINY.model_copy(update={"width": 8})).save_pretrained(tmp_path / "wide")
    (tmp_path / "wide" / "lm.yaml").write_bytes((tmp_path / "lm.yaml").read_bytes())
    refused(tmp_path / "wide", "another model")


@pytest.mark.parametrize(
    ("content", "word"),
    [("layers: [", "not YAML"), ("wdth: 3", "did you mean `width`"), ("alphabet: AA", "repeats")],
)
def test_broken_settings(model, tmp_path, content, word):
    model.save_pretrained(tmp_path)
    (tmp_path / "lm.yaml").write_text(content)
    refused(tmp_path, word)


def test_weights_are_float32_on_disk(model, tmp_path):
    model.save_pretrained(tmp_path)
    raw = (tmp_path / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int(np.frombuffer(raw[:8], "<u8")[0])])
    assert {v["dtype"] for k, v in header.items() if k != "__metadata__"} == {"F32"}
