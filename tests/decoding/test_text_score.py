"""The score of a given text is the one that the search gives it."""

import pytest
import torch

from las.config import SearchConfig
from las.decoding.beam_search import beam_search
from las.decoding.greedy import greedy
from las.decoding.hypothesis import CharacterAndWordLM
from las.decoding.text_score import score_text
from las.errors import LASError
from tests.decoding.reference_search import HistoryLM, encode
from tests.lm.test_word_ngram import word_model

SETTINGS = {
    "attention": {},
    "ctc": {"ctc": 0.4},
    "length": {"length_power": 0.7, "length_bonus": 0.5, "word_penalty": 0.8},
    "all": {
        "ctc": 0.3,
        "lm_weight": 0.4,
        "word_weight": 0.6,
        "unknown_word": 1.0,
        "word_penalty": 0.3,
        "length_power": 0.5,
        "length_bonus": 0.3,
    },
}


@pytest.mark.parametrize("name", SETTINGS)
@torch.inference_mode()
def test_every_text_that_a_beam_finds_has_its_score(tiny, noise, name):
    model = tiny("AB ", 1)
    characters, words = HistoryLM(len(model.text)), word_model("AB ", 1)[1]
    lm = CharacterAndWordLM(characters, words) if name == "all" else None
    encoded = encode(model, noise, [2500])
    config = SearchConfig(beam=6, n_best=6, **SETTINGS[name])
    (found,) = beam_search(model, encoded, config, lm)
    finished = [h for h in found if h.finished and len(h.ids) == len(h.text) + 1]
    assert len({h.text for h in finished}) > 2
    for h in finished:
        scored = score_text(model, encoded, h.text, config, lm)
        assert scored == pytest.approx(h.score, rel=1e-4, abs=1e-4)


def test_greedy_search_and_language_models_that_are_not_weighed(tiny, noise):
    model = tiny("AB ", 2)
    encoded = encode(model, noise, [1800])
    (found,) = greedy(model, encoded)
    config = SearchConfig(lm_weight=0.0)
    characters = HistoryLM(len(model.text))
    if found.finished:
        scored = score_text(model, encoded, found.text, config, characters)
        assert scored == pytest.approx(found.score, rel=1e-4, abs=1e-4)
    assert score_text(model, encoded, "AB A", config) == score_text(
        model, encoded, "AB A", config, characters
    )


def test_coverage_is_refused(tiny, noise):
    model = tiny("AB ", 1)
    with pytest.raises(LASError, match="coverage"):
        score_text(model, encode(model, noise, [900]), "A", SearchConfig(coverage=0.1))
