"""The choice of search settings: what is found, what is dropped, and never worse than greedy."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from speech import sentences, small_model, write_manifest

from las.config import SearchConfig
from las.evaluation import tuning_report
from las.evaluation.evaluate import transcribe_manifest
from las.evaluation.trials import Trial, encode_manifest, measure
from las.evaluation.tune import GREEDY, GRID, simplicity, tune
from las.scoring.wer import score

CPU = torch.device("cpu")
WORDS = 1000


def trial(config, errors, character_errors=0):
    """What a made-up system does, 10 utterances of 100 words."""
    spread = np.full(10, errors // 10)
    spread[: errors % 10] += 1
    words = np.full(10, WORDS // 10)
    return Trial(config, errors / 10, 1.0, spread, words, character_errors, 0.0)


def bowl(best, greedy=200, step=10, beams=None, least=50):
    """Errors grow by ``step`` for each value of the grid between a setting and its best."""

    def measured(config):
        if config == GREEDY:
            return trial(config, greedy)
        errors = least
        for name, values in GRID.items():
            wanted = values.index(best.get(name, values[0]))
            errors += step * abs(values.index(getattr(config, name)) - wanted)
        return trial(config, errors + (beams or {}).get(config.beam, 0))

    return measured


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("tuning"), sentences(6))


def test_the_best_values_are_found():
    best = {"ctc": 0.5, "length_bonus": 0.5, "coverage": 0.1, "end_threshold": 1.5}
    result = tune(bowl(best), beam=8)
    assert {name: getattr(result.chosen.config, name) for name in best} == best
    assert result.chosen.config.lm_weight == 0 and result.beats_greedy
    assert result.chosen.word_errors == 50
    assert result.comparison.wer_a == 20.0 and result.comparison.wer_b == 5.0


def test_a_language_model_is_weighed_only_where_there_is_one():
    best = {"ctc": 0.2, "lm_weight": 0.6}
    with_lm = tune(bowl(best), beam=8, lm=True)
    assert with_lm.chosen.config.lm_weight == 0.6
    without = tune(bowl(best), beam=8, lm=False)
    assert all(t.config.lm_weight == 0 for t in without.trials)
    assert without.chosen.config.ctc == 0.2


def test_words_are_weighed_only_where_there_are_some():
    best = {"lm_weight": 0.3, "word_weight": 0.2}
    result = tune(bowl(best), beam=4, lm=True, words=True)
    assert {name: getattr(result.chosen.config, name) for name in best} == best
    assert all(t.config.word_weight == 0 for t in tune(bowl(best), beam=4, lm=True).trials)


def test_the_beam_that_pays_is_chosen():
    beams = {1: 60, 2: 40, 4: 20, 8: 0, 16: 0}
    assert tune(bowl({"ctc": 0.3}, beams=beams), beam=16).chosen.config.beam == 8
    assert tune(bowl({"ctc": 0.3}, beams=beams), beam=4).chosen.config.beam == 4
    worse = {1: 60, 2: 0, 4: 20, 8: 40}
    assert tune(bowl({"ctc": 0.3}, beams=worse), beam=8).chosen.config.beam == 2


def test_settings_that_save_too_little_are_dropped():
    # The best has 200 errors, so that a setting must save 4, however many greedy search has.
    best = {"ctc": 0.1, "coverage": 0.02}
    pays = tune(bowl(best, greedy=900, step=4, least=200), beam=1)
    assert (pays.required, pays.chosen.config.ctc, pays.chosen.config.coverage) == (4, 0.1, 0.02)
    idle = tune(bowl(best, greedy=900, step=3, least=200), beam=1)
    # one of them alone may go, both together would cost 6
    assert sum(getattr(idle.chosen.config, name) != GRID[name][0] for name in GRID) == 1
    assert any(t.word_errors < idle.chosen.word_errors for t in idle.trials)


def test_of_equals_the_simplest_is_chosen():
    # A beam does it, or CTC or a bonus: of one step each, and the beam counts last.
    plain = {"ctc": 0.0, "length_bonus": 0.0}
    better = tune(
        lambda config: trial(
            config, 200 if all(getattr(config, n) == v for n, v in plain.items()) else 100
        ),
        beam=8,
    )
    assert simplicity(better.chosen.config) == (1, 1, 1)
    wide = tune(lambda config: trial(config, 200 if config.beam == 1 else 100), beam=8)
    assert wide.chosen.config == GREEDY.model_copy(update={"beam": 2})


def test_characters_decide_between_equal_words():
    def measured(config):
        if config == GREEDY:
            return trial(config, 200, 500)
        return trial(config, 100 if config.ctc else 200, 300 - int(100 * config.ctc))

    assert tune(measured, beam=1).chosen.config.ctc == max(GRID["ctc"])


@given(st.integers(0, 10**6), st.sampled_from([1, 3, 4, 8]), st.booleans())
def test_never_worse_than_greedy_search(seed, beam, lm):
    seen = []

    def measured(config):
        seen.append(config)
        return trial(config, zlib.crc32(f"{seed} {config}".encode()) % 200)

    result = tune(measured, beam=beam, lm=lm)
    assert len(seen) == len(set(seen)) == len(result.trials)
    assert all(config.beam <= beam for config in seen)
    assert seen[0] == GREEDY and result.greedy.config == GREEDY
    saved = result.greedy.word_errors - result.chosen.word_errors
    if result.beats_greedy:
        assert saved >= result.required >= 1
        assert result.chosen is result.best
    else:
        assert result.chosen is result.greedy
        assert "greedy search is chosen" in tuning_report.summary(result)
        assert result.greedy.word_errors - result.best.word_errors < result.required


def test_a_gain_that_is_too_small_is_greedy_search_and_said():
    def measured(config):
        return trial(config, 200 if config == GREEDY else 197)

    result = tune(measured, beam=4)
    assert not result.beats_greedy and result.chosen.config == GREEDY
    text = tuning_report.summary(result)
    assert "no settings save the 4 word errors" in text and "greedy search is chosen" in text


def test_the_search_begins_at_the_stored_settings():
    # Two settings that help only together.
    def measured(config):
        both = config.ctc == 0.8 and config.length_power == 1.0
        shallow = int(100 + 100 * config.ctc + 50 * config.length_power)
        return trial(config, 300 if config == GREEDY else 10 if both else shallow)

    stored = measured(SearchConfig(beam=2, ctc=0.7, length_power=1.0, lm_weight=0.0))
    found = tune(measured, beam=4, stored=stored)
    assert found.chosen.config.ctc == 0.8 and not found.keeps_stored
    assert tune(measured, beam=4).chosen.config.ctc == 0.0


def test_stored_settings_do_not_keep_from_better_ones():
    # Without CTC any weight of the language model loses; with it, a weight of 0.2 gains.
    def measured(config):
        if config == GREEDY:
            return trial(config, 120)
        if config.ctc == 0.0:
            return trial(config, int(90 + 100 * config.lm_weight))
        return trial(config, int(95 + 100 * abs(config.lm_weight - 0.2) - 40 * config.lm_weight))

    stored = measured(SearchConfig(beam=4, ctc=0.0, lm_weight=0.0))
    found = tune(measured, beam=4, lm=True, stored=stored)
    assert found.chosen.word_errors < stored.word_errors and found.chosen.config.ctc > 0.0


@given(st.integers(0, 500), st.booleans())
def test_never_worse_than_what_is_stored(seed, off_grid):
    def measured(config):
        drawn = zlib.crc32(f"{seed} {config}".encode())
        return trial(config, 50 + drawn % 150, drawn % 7)

    ctc = 0.33 if off_grid else 0.3
    stored = measured(SearchConfig(beam=3, ctc=ctc, max_back=5.0, lm_weight=0.0))
    found = tune(measured, beam=4, stored=stored)
    assert found.chosen.word_errors <= stored.word_errors
    assert found.keeps_stored == (found.chosen is stored)
    text = tuning_report.summary(found)
    assert text.startswith("the stored settings are kept") == found.keeps_stored


def test_measuring_is_what_evaluating_is(manifest):
    model = small_model()
    batches = encode_manifest(model, manifest, CPU, batch_seconds=4.0)
    assert len(batches) > 1
    settings = (GREEDY, SearchConfig(beam=3, ctc=0.3, lm_weight=0.0, max_steps=12))
    for config in settings:
        found = score(transcribe_manifest(model, manifest, CPU, config=config))
        one = measure(model, batches, config)
        assert (one.wer, one.cer) == (found.wer, found.cer)
        assert one.word_errors == found.substitutions + found.deletions + found.insertions
        assert one.words.sum() == found.words
        assert one.character_errors == pytest.approx(found.cer * found.characters / 100)
    greedy, beam = (measure(model, batches, config) for config in settings)
    assert greedy.character_errors != beam.character_errors


def test_a_set_is_encoded_once(manifest, monkeypatch):
    model = small_model()
    calls = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *x: calls.append(x) or encode(*x))
    batches = encode_manifest(model, manifest, CPU)
    encoded = len(calls)
    for beam in (1, 2):
        measure(model, batches, SearchConfig(beam=beam, lm_weight=0.0, max_steps=5))
    assert len(calls) == encoded == len(batches)


def test_some_utterances_are_drawn(manifest):
    def ids(**settings):
        return {
            i
            for batch in encode_manifest(small_model(), manifest, CPU, **settings)
            for i in batch.ids
        }

    whole = ids()
    draws = [ids(utterances=3, seed=seed) for seed in range(6)]
    assert all(len(draw) == 3 and draw < whole for draw in draws)
    assert len({frozenset(draw) for draw in draws}) > 1
    assert ids(utterances=3, seed=4) == draws[4]
    assert ids(utterances=100) == whole
