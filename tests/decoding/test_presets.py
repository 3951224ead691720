"""Search settings in a model folder: what is kept, what is used, and what is refused."""

import shutil
import threading

import numpy as np
import pytest
import torch
from speech import small_model

from las.config import SearchConfig
from las.decoding import presets
from las.decoding.hypothesis import CharacterAndWordLM
from las.decoding.presets import lm_name, store_search, summary
from las.errors import LASError
from las.lm.config import LMModelConfig
from las.lm.lstm import LanguageModel
from las.lm.word_ngram import FIRST, Table, WordConfig, WordModel, quantise
from las.storage.atomic import locked
from las.storage.settings import save_settings
from las.text.subwords import Subwords

ALPHABET = small_model().config.alphabet


def language_model(folder, alphabet=ALPHABET, seed=0):
    torch.manual_seed(seed)
    LanguageModel(LMModelConfig(alphabet=alphabet, width=4, embedding=4)).save_pretrained(folder)
    return folder


def word_model(folder, alphabet=ALPHABET, words=("AB", "A")):
    """A word model whose words are alike."""
    ids = np.arange(len(words) + FIRST)
    alike = quantise(np.full(len(ids), -1.0))
    table = Table(ids * 0, ids, alike, alike)
    WordModel(WordConfig(alphabet=alphabet, order=1), words, [table]).save_pretrained(folder)
    return folder


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "recogniser"
    small_model().save_pretrained(folder)
    return folder


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_without_settings_it_is_greedy_search(model):
    language_model(model / "lm")  # nobody said how to weigh it
    assert presets.stored_search(model) == (SearchConfig(), None)
    assert summary(model) is None


def test_the_bundled_model_is_found():
    config, lm = presets.stored_search()
    assert not config.greedy and lm is not None


def test_what_is_stored_comes_back(model, tmp_path):
    lm = language_model(tmp_path / "lm" / "model", seed=3)
    (lm / "LICENCE").write_text("free")
    (lm / "more").mkdir()
    config = SearchConfig(beam=5, ctc=0.25, lm_weight=0.7, end_threshold=1.5)
    assert store_search(model, config, lm) == model / "search.yaml"
    found, loaded = presets.stored_search(model, "cpu")
    assert found == config
    state = LanguageModel.load(lm).state_dict()
    assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in state)
    assert not loaded.training
    assert (model / "lm" / "LICENCE").read_text() == "free"
    assert not (model / "lm" / "more").exists()
    assert hidden(model) == []
    assert summary(model) == "beam 5, ctc 0.25, lm recogniser/lm, lm_weight 0.7, end_threshold 1.5"


def test_another_language_model_takes_the_place_of_the_first(model, tmp_path):
    for seed in (1, 2):
        lm = language_model(tmp_path / f"lm{seed}", seed=seed)
        store_search(model, SearchConfig(beam=2, lm_weight=0.1 * seed), lm)
    found, loaded = presets.stored_search(model)
    assert found.lm_weight == 0.2
    assert torch.equal(loaded.output.weight, LanguageModel.load(lm).output.weight)
    assert hidden(model) == []
    store_search(model, SearchConfig(beam=3, lm_weight=0.5), model / "lm")  # its own
    assert torch.equal(
        presets.stored_search(model)[1].output.weight, LanguageModel.load(lm).output.weight
    )


def test_settings_without_a_language_model_leave_a_stored_one_out(model, tmp_path):
    store_search(model, SearchConfig(beam=2), language_model(tmp_path / "lm"))
    store_search(model, SearchConfig(beam=4))
    config, lm = presets.stored_search(model)
    assert (config.beam, config.lm_weight, lm) == (4, 0.0, None)
    assert summary(model) == "beam 4"


def test_a_copy_that_fails_leaves_no_settings_of_another_model(model, tmp_path, monkeypatch):
    store_search(model, SearchConfig(beam=2, lm_weight=0.4), language_model(tmp_path / "first"))
    second = language_model(tmp_path / "second", seed=1)
    before = {path.name: path.read_bytes() for path in (model / "lm").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        store_search(model, SearchConfig(beam=2, lm_weight=0.8), second)
    assert {path.name: path.read_bytes() for path in (model / "lm").iterdir()} == before
    assert not (model / "search.yaml").exists()
    assert hidden(model) == []


def test_settings_by_hand_take_the_language_model_there_is(model):
    (model / "search.yaml").write_text("beam: 8\nctc: 0.3\n")
    assert presets.stored_search(model) == (SearchConfig(beam=8, ctc=0.3), None)
    language_model(model / "lm")
    config, lm = presets.stored_search(model)
    assert config.lm_weight == 0.3 and lm is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("beem: 8", "did you mean `beam`?"),
        ("beam: 0", "`beam`"),
        ("beam: [", "not YAML"),
        ("eight", "not a configuration"),
        ("beam: 8\nlm_weight: 0.4", "lm is missing"),
    ],
)
def test_settings_that_are_not_right(model, text, words):
    (model / "search.yaml").write_text(text)
    with pytest.raises(LASError) as caught:
        presets.stored_search(model)
    assert str(model / "search.yaml") in str(caught.value)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_language_model_of_another_alphabet_is_refused(model, tmp_path):
    store_search(model, SearchConfig(beam=2), language_model(tmp_path / "other", "XYZ"))
    with pytest.raises(LASError, match="'XYZ'") as caught:
        presets.stored_search(model)
    assert str(model / "lm") in str(caught.value)


def test_names_tell_language_models_apart(tmp_path):
    assert lm_name(tmp_path / "books") == "books"
    assert lm_name(tmp_path / "books" / "model") == "books/model"
    assert lm_name(tmp_path / "recogniser" / "lm") == "recogniser/lm"


# Words


def test_words_are_stored_beside_the_language_model(model, tmp_path):
    words = word_model(tmp_path / "books")
    config = SearchConfig(beam=3, lm_weight=0.4, word_weight=0.2)
    store_search(model, config, language_model(tmp_path / "lm"), words)
    found, loaded = presets.stored_search(model)
    assert found == config and isinstance(loaded, CharacterAndWordLM)
    assert isinstance(loaded.characters, LanguageModel) and loaded.words.words == ["AB", "A"]
    expected = "lm recogniser/lm, lm_weight 0.4, words recogniser/words, word_weight 0.2"
    assert summary(model) == f"beam 3, {expected}"
    store_search(model, config.model_copy(update={"word_weight": 0.3}), None, model / "words")
    found, loaded = presets.stored_search(model)
    assert (found.lm_weight, found.word_weight) == (0.0, 0.3)
    assert isinstance(loaded, CharacterAndWordLM) and loaded.characters is None
    store_search(model, config)
    assert presets.stored_search(model)[1] is None
    assert hidden(model) == []


def test_words_that_are_weighed_and_missing(model):
    (model / "search.yaml").write_text("word_weight: 0.3")
    with pytest.raises(LASError, match="words is missing") as caught:
        presets.stored_search(model)
    assert str(model / "search.yaml") in str(caught.value)


def test_words_of_other_units_are_refused(model, tmp_path):
    store_search(
        model, SearchConfig(word_weight=0.3), None, word_model(tmp_path / "o", " XY", ["X"])
    )
    with pytest.raises(LASError, match="' XY'"):
        presets.stored_search(model)
    with pytest.raises(LASError, match="writes subwords"):
        presets.load_words(tmp_path / "o", Subwords(" AB", ["AB"]), "cpu")


def test_two_that_store_do_not_mix(model, tmp_path):
    lm = language_model(tmp_path / "lm")
    other = threading.Thread(target=store_search, args=(model, SearchConfig(beam=4), lm))
    with locked(model):
        other.start()
        other.join(0.1)
        assert not (model / "lm").exists()
        save_settings(SearchConfig(beam=2), model / "search.yaml")
    other.join()
    assert summary(model).startswith("beam 4") and (model / "lm").is_dir() and not hidden(model)
