"""Beam search against a search of lists and loops, and against enumeration of everything."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.config import SearchConfig
from las.decoding.beam_search import beam_search
from las.decoding.greedy import greedy
from las.decoding.search import search
from las.text.characters import EOS
from tests.decoding.reference_search import (
    NEG_INF,
    HistoryLM,
    ReferenceSearch,
    assert_same,
    encode,
    make,
)

SCORES = {
    "attention": {},
    "ctc": {"ctc": 0.4},
    "lm": {"lm_weight": 0.6},
    "normalised": {"length_power": 0.8},
    "bonus": {"length_bonus": 1.0},
    "coverage": {"coverage": 0.7, "coverage_threshold": 0.6},
    "all": {
        "ctc": 0.3,
        "lm_weight": 0.4,
        "length_power": 0.5,
        "length_bonus": 0.1,
        "coverage": 0.2,
    },
}


@pytest.mark.parametrize(("alphabet", "steps"), [("A", 5), ("AB", 4)])
@pytest.mark.parametrize("name", SCORES)
@torch.inference_mode()
def test_a_beam_of_all_prefixes_finds_the_best_and_no_beam_beats_it(
    tiny, noise, name, alphabet, steps
):
    width = len(alphabet) ** (steps - 1) * (len(alphabet) + 1)  # candidates of the last step
    for seed in (1, 2):
        model = tiny(alphabet, seed)
        lm = HistoryLM(len(model.text)) if "lm_weight" in SCORES[name] else None
        encoded = encode(model, noise, [2500])
        config = SearchConfig(**SCORES[name], max_steps=steps)
        everything = ReferenceSearch(model, encoded, config, lm).everything()
        for beam in (width, *range(1, 7)):
            n_best = min(beam, 5) if beam == width else 1
            setting = config.model_copy(update={"beam": beam, "n_best": n_best})
            (found,) = beam_search(model, encoded, setting, lm)
            if beam == width:
                assert_same(model, found, everything[:n_best])
            best = found[0]
            if best.finished:
                scores = {model.text.decode(ids): score for ids, score in everything}
                assert best.score == pytest.approx(scores[best.text], rel=1e-4, abs=1e-4)
                assert best.score <= everything[0][1] + 1e-4


configs = st.builds(
    lambda beam, n_best, **rest: SearchConfig(beam=beam, n_best=min(n_best, beam), **rest),
    beam=st.integers(1, 4),
    n_best=st.integers(1, 4),
    ctc=st.sampled_from([0.0, 0.3]),
    lm_weight=st.sampled_from([0.0, 0.5]),
    word_penalty=st.sampled_from([0.0, 0.7]),
    length_power=st.sampled_from([0.0, 0.7, 1.0]),
    length_bonus=st.sampled_from([0.0, 0.5]),
    coverage=st.sampled_from([0.0, 0.5]),
    coverage_threshold=st.sampled_from([0.2, 0.7]),
    end_threshold=st.sampled_from([None, 1.0, 1.5, 3.0]),
    max_back=st.sampled_from([None, 0.0, 0.3]),
    max_ahead=st.sampled_from([None, 0.1, 0.5]),
    no_repeat_ngram=st.sampled_from([0, 0, 1, 2, 3]),
    max_steps=st.sampled_from([2, 6]),
)


@given(configs, st.integers(1, 3000), st.integers(1, 4))
@settings(max_examples=60)
@torch.inference_mode()
def test_any_settings_against_the_reference(tiny, noise, config, length, seed):
    model = tiny("A ", seed)
    encoded = encode(model, noise, [length])
    lm = HistoryLM(len(model.text))
    (found,) = beam_search(model, encoded, config, lm)
    plain = ReferenceSearch(model, encoded, config, lm if config.lm_weight else None)
    assert_same(model, found, plain.run())


CHANGES = {
    "end_threshold": {"end_threshold": 1.0},
    "max_back": {"max_back": 0.1},
    "max_ahead": {"max_ahead": 0.1},
    "ngram": {"no_repeat_ngram": 2},
    "coverage": {"coverage": 1.0},
    "length_power": {"length_power": 1.0},
    "length_bonus": {"length_bonus": 2.0},
    "ctc": {"ctc": 0.5},
    "lm": {"lm_weight": 1.0},
    "word_penalty": {"word_penalty": 1.0},
}


@pytest.mark.parametrize("name", CHANGES)
@torch.inference_mode()
def test_every_setting_changes_results_as_in_the_reference(tiny, noise, name):
    changed = 0
    for seed, length in itertools.product((1, 2, 3, 4), (1500, 2500)):
        model = tiny("A " if name == "word_penalty" else "AB", seed)
        lm = HistoryLM(len(model.text)) if name == "lm" else None
        encoded = encode(model, noise, [length])
        config = SearchConfig(beam=3, n_best=2, max_steps=7, **CHANGES[name])
        (found,) = beam_search(model, encoded, config, lm)
        assert_same(model, found, ReferenceSearch(model, encoded, config, lm).run())
        plain = SearchConfig(beam=3, n_best=2, max_steps=7)
        changed += [h.text for h in found] != [
            h.text for h in beam_search(model, encoded, plain)[0]
        ]
    assert changed


@torch.inference_mode()
def test_limits_that_all_active_hypotheses_exceed_are_lifted(tiny, noise):
    for seed, length in itertools.product((1, 2, 3, 4), (1500, 2500)):
        model = tiny("AB", seed)
        encoded = encode(model, noise, [length])
        for move in (0.0, 0.01, 0.05):  # while most beams are still unused
            config = SearchConfig(beam=12, n_best=2, max_steps=4, max_back=move, max_ahead=move)
            (found,) = beam_search(model, encoded, config)
            assert_same(model, found, ReferenceSearch(model, encoded, config).run())


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=4), st.integers(1, 4))
@settings(max_examples=20)
def test_beam_1_is_greedy_to_the_bit(tiny, noise, lengths, seed):
    model = tiny(" 'ABC", seed)
    encoded = encode(model, noise, lengths)
    for (mine,), expected in zip(
        beam_search(model, encoded, SearchConfig()), greedy(model, encoded), strict=True
    ):
        assert (mine.text, mine.score, mine.finished) == (
            expected.text,
            expected.score,
            expected.finished,
        )
        assert torch.equal(mine.alignment, expected.alignment)


def test_no_ngram_is_written_twice(tiny, noise):
    for seed in (1, 2, 3):
        model = tiny("AB", seed)
        encoded = encode(model, noise, [9000, 5000])
        config = SearchConfig(beam=4, n_best=4, no_repeat_ngram=3, length_bonus=3.0)
        texts_found = [h.text for n in search(model, encoded, config) for h in n]
        assert max(map(len, texts_found)) > 4
        for text in texts_found:
            grams = [text[i : i + 3] for i in range(len(text) - 2)]
            assert len(grams) == len(set(grams))


class Forbidding(HistoryLM):
    """Allows nothing at all after the second step."""

    def step(self, state, tokens):
        log_probs, state = super().step(state, tokens)
        return torch.full_like(log_probs, NEG_INF), state


def test_a_language_model_that_forbids_everything_gives_an_empty_text(tiny, noise):
    model = tiny("AB", 1)
    encoded = encode(model, noise, [2000, 4000])
    for hypotheses in search(model, encoded, SearchConfig(beam=2), Forbidding(len(model.text))):
        (hypothesis,) = hypotheses
        assert (hypothesis.text, hypothesis.score, hypothesis.finished) == ("", NEG_INF, False)
        assert hypothesis.alignment.shape[0] == 0


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_an_utterance_stops_when_nothing_can_beat_its_best(tiny_config, noise, monkeypatch, power):
    model = make(tiny_config, "AB", 1)
    with torch.no_grad():
        model.speller.output.bias[EOS] = 300.0
    encoded = encode(model, noise, [9000, 2000])
    steps = []
    step = model.speller.step
    monkeypatch.setattr(model.speller, "step", lambda *a: steps.append(0) or step(*a))
    for hypotheses in search(model, encoded, SearchConfig(beam=3, length_power=power)):
        assert hypotheses[0].text == ""
    assert len(steps) == 1


def test_memory_is_stored_once_an_utterance(tiny, noise, monkeypatch):
    model = tiny("AB", 1)
    encoded = encode(model, noise, [2000, 4000])
    seen = []
    step = model.speller.step

    def spy(memory, state, tokens):
        seen.append((memory.keys.shape[0], tuple(tokens.shape)))
        return step(memory, state, tokens)

    monkeypatch.setattr(model.speller, "step", spy)
    search(model, encoded, SearchConfig(beam=6))
    assert set(seen) == {(2, (2, 6))}


def test_more_hypotheses_than_beams_are_refused():
    with pytest.raises(ValueError, match="n_best 3 is more than beam 2"):
        SearchConfig(beam=2, n_best=3)


@given(
    lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=3),
    beam=st.integers(1, 4),
    ctc=st.sampled_from([0.0, 0.4]),
    max_steps=st.sampled_from([None, 2]),
    seed=st.integers(1, 4),
)
@settings(max_examples=20)
@torch.inference_mode()
def test_ids_and_log_probs_are_the_spellers_own(tiny, noise, lengths, beam, ctc, max_steps, seed):
    model = tiny("AB", seed)
    encoded = encode(model, noise, lengths)
    config = SearchConfig(beam=beam, n_best=beam, ctc=ctc, max_steps=max_steps)
    lm = HistoryLM(len(model.text))
    for row, found in enumerate(search(model, encoded, config, lm)):
        own = model.encode(*noise(lengths))
        memory = type(own.memory)(*(x[row : row + 1] for x in own.memory))
        for hypothesis in found:
            ids = hypothesis.ids
            assert hypothesis.text == model.text.decode(ids.tolist())
            assert hypothesis.finished == (len(ids) > 0 and int(ids[-1]) == EOS)
            if len(ids) == 0:
                continue
            inputs = torch.cat([torch.tensor([EOS]), ids[:-1]])[None]
            logits, _ = model.speller(memory, inputs)
            expected = logits[0].log_softmax(-1).gather(1, ids[:, None])[:, 0]
            torch.testing.assert_close(hypothesis.log_probs, expected, atol=1e-4, rtol=1e-4)
