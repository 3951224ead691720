"""Words in the search, against plain Python that scores the words of a text anew at every step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.config import SearchConfig
from las.decoding.beam_search import beam_search
from las.decoding.greedy import greedy
from las.decoding.hypothesis import CharacterAndWordLM
from las.decoding.search import search
from las.text.characters import EOS
from tests.decoding.reference_search import HistoryLM, ReferenceSearch, assert_same, encode
from tests.lm.test_word_ngram import score, word_model


class ReferenceWords(ReferenceSearch):
    """The reference search with the words of a text scored anew at every step."""

    def __init__(self, plain, *rest):
        super().__init__(*rest)
        self.plain = plain

    def words(self, ids):
        text = self.model.text.decode(ids) + ("$" if ids and ids[-1] == EOS else "")
        return self.config.word_weight * score(self.plain, text, self.config.unknown_word)

    def extend(self, hypothesis):
        found = []
        before = self.words(hypothesis.ids)
        for h in super().extend(hypothesis):
            more = self.words(h.ids) - before
            found.append(h._replace(summed=h.summed + more, total=h.total + more))
        return found


SCORES = {
    "words": {},
    "unknown": {"unknown_word": 3.0},
    "all": {
        "ctc": 0.3,
        "lm_weight": 0.4,
        "unknown_word": 1.0,
        "word_penalty": 0.3,
        "length_power": 0.5,
        "length_bonus": 0.3,
    },
}


@pytest.mark.parametrize("name", SCORES)
@torch.inference_mode()
def test_a_beam_of_all_prefixes_finds_the_best_text(tiny, noise, name):
    steps, alphabet = 5, "A "
    width = len(alphabet) ** (steps - 1) * (len(alphabet) + 1)
    for seed in (1, 2):
        model = tiny(alphabet, seed)
        plain, words = word_model(alphabet, seed)
        characters = HistoryLM(len(model.text)) if "lm_weight" in SCORES[name] else None
        encoded = encode(model, noise, [2500])
        config = SearchConfig(word_weight=0.6, max_steps=steps, **SCORES[name])
        everything = ReferenceWords(plain, model, encoded, config, characters).everything()
        for beam in (width, 1, 3):
            n_best = 5 if beam == width else 1
            setting = config.model_copy(update={"beam": beam, "n_best": n_best})
            (found,) = beam_search(model, encoded, setting, CharacterAndWordLM(characters, words))
            if beam == width:
                assert_same(model, found, everything[:n_best])
            elif found[0].finished:
                scores = {model.text.decode(ids): score for ids, score in everything}
                assert found[0].score == pytest.approx(scores[found[0].text], rel=1e-4, abs=1e-4)
                assert found[0].score <= everything[0][1] + 1e-4


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@torch.inference_mode()
def test_small_beams_against_the_reference(tiny, noise, seed):
    model = tiny("A ", seed)
    plain, words = word_model("A ", seed)
    changed = 0
    for length in (1500, 2500):
        encoded = encode(model, noise, [length])
        characters = HistoryLM(len(model.text))
        config = SearchConfig(beam=3, n_best=2, max_steps=7, word_weight=0.8, lm_weight=0.3)
        (found,) = beam_search(model, encoded, config, CharacterAndWordLM(characters, words))
        assert_same(model, found, ReferenceWords(plain, model, encoded, config, characters).run())
        off = config.model_copy(update={"word_weight": 0.0})
        (without,) = beam_search(model, encoded, off, CharacterAndWordLM(characters, words))
        (alone,) = beam_search(model, encoded, off, characters)
        assert [(h.text, h.score) for h in without] == [(h.text, h.score) for h in alone]
        changed += found[0].score != alone[0].score
    assert changed


@given(lengths=st.lists(st.integers(1, 9000), min_size=2, max_size=4), extra=st.integers(0, 3000))
@settings(max_examples=8, deadline=None)
@torch.inference_mode()
def test_a_batch_its_order_and_its_padding_change_nothing(tiny, noise, lengths, extra):
    model = tiny("A B", 3)
    _, words = word_model("A B", 2)
    config = SearchConfig(beam=4, n_best=3, ctc=0.3, lm_weight=0.4, word_weight=0.5)
    both = CharacterAndWordLM(HistoryLM(len(model.text)), words)
    waveforms, samples = noise(lengths, extra)
    together = search(model, model.encode(waveforms, samples), config, both)
    for row, length in enumerate(lengths):
        single = model.encode(waveforms[row : row + 1, :length], samples[row : row + 1])
        (alone,) = search(model, single, config, both)
        assert [h.text for h in together[row]] == [h.text for h in alone]
        for a, b in zip(together[row], alone, strict=True):
            assert a.score == pytest.approx(b.score, rel=1e-3, abs=1e-3)


@torch.inference_mode()
def test_words_of_no_weight_are_greedy_search_to_the_bit(tiny, noise):
    model = tiny("A B", 2)
    encoded = encode(model, noise, [3000, 7000])
    both = CharacterAndWordLM(None, word_model("A B", 2)[1])
    found = search(model, encoded, SearchConfig(), both)
    for (mine,), expected in zip(found, greedy(model, encoded), strict=True):
        assert (mine.text, mine.score) == (expected.text, expected.score)


def test_words_alone_predict_no_characters():
    both = CharacterAndWordLM(None, word_model("A B", 2)[1])
    with pytest.raises(ValueError, match="no characters"):
        both.start(1, 1)
