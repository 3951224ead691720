"""Calibration: the error by hand, the fit against a slow one, speakers held out, the command."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import error_line, run_main, sentences, small_model, write_manifest

from las.errors import LASError
from las.evaluation import calibrate
from las.evaluation.calibrate import ScoredWords, expected_error, fit, held_out
from las.transcription import confidence as word_confidence
from las.transcription.confidence import Calibration
from las.transcription.word_timestamps import timed_words
from tests.transcription.test_word_timestamps import hypothesis


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("calibrate"), sentences(4))


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "recogniser"
    small_model().save_pretrained(folder)
    return folder


# --- the expected calibration error ---------------------------------------------------------


def test_the_error_by_hand():
    # Bins of a tenth: {0.92, 0.98} of which one is right, {0.31} right, {1.0} with the first bin.
    probabilities, right = [0.92, 0.98, 0.31, 1.0], [True, False, True, True]
    first = abs((0.92 + 0.98 + 1.0) / 3 - 2 / 3) * 3 / 4
    assert expected_error(np.array(probabilities), np.array(right)) == pytest.approx(
        first + abs(0.31 - 1) / 4
    )


words = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@given(words, st.integers(1, 20))
def test_the_error_is_that_of_a_slow_sum(pairs, bins):
    total = 0.0
    for number in range(bins):
        inside = [(p, r) for p, r in pairs if min(int(p * bins), bins - 1) == number]
        if inside:
            confidence = sum(p for p, _ in inside) / len(inside)
            accuracy = sum(r for _, r in inside) / len(inside)
            total += len(inside) / len(pairs) * abs(confidence - accuracy)
    probabilities, right = (np.array(x) for x in zip(*pairs, strict=True))
    assert expected_error(probabilities, right, bins) == pytest.approx(total, abs=1e-12)


# --- the map --------------------------------------------------------------------------------


def likelihood(slope, offset, probabilities, right) -> float:
    count, total = sum(right), 0.0
    for p, r in zip(probabilities, right, strict=True):
        p = min(max(p, 1e-6), 1 - 1e-6)
        x = slope * math.log(p / (1 - p)) + offset
        target = (count + 1) / (count + 2) if r else 1 / (len(right) - count + 2)
        total += target * -math.log1p(math.exp(-x)) + (1 - target) * -math.log1p(math.exp(x))
    return total


@given(words)
@settings(max_examples=50)
def test_nothing_near_is_likelier(pairs):
    probabilities, right = (np.array(x) for x in zip(*pairs, strict=True))
    found = fit(probabilities, right)
    assert found.slope >= 0.01
    best = likelihood(found.slope, found.offset, probabilities, right)
    for slope in (-0.01, 0.0, 0.01):
        for offset in (-0.01, 0.0, 0.01):
            if found.slope + slope >= 0.01:
                near = (found.slope + slope, found.offset + offset)
                assert likelihood(*near, probabilities, right) <= best + 1e-6


def drawn(seed: int, count: int = 4000) -> ScoredWords:
    """Words of a model that is too sure: the logit of being right is half its own, less 1."""
    generator = np.random.default_rng(seed)
    x = generator.normal(1.0, 2.0, count)
    right = generator.random(count) < 1 / (1 + np.exp(-(0.5 * x - 1)))
    return ScoredWords(1 / (1 + np.exp(-x)), right)


def test_what_was_drawn_is_found():
    found = fit(*drawn(0))
    assert found.slope == pytest.approx(0.5, abs=0.06)
    assert found.offset == pytest.approx(-1, abs=0.1)
    other = drawn(1)
    assert expected_error(*other) > 0.2
    assert expected_error(found.of(other.probabilities), other.correct) < 0.04


@given(st.floats(0.01, 5), st.floats(-5, 5), st.lists(st.floats(0, 1), min_size=2))
def test_the_order_of_words_stays(slope, offset, probabilities):
    found = Calibration(slope=slope, offset=offset).of(np.sort(np.array(probabilities)))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_halves_of_the_speakers_are_fitted_on_the_other():
    words = {f"s{n}": drawn(n, 500) for n in range(5)}
    after = held_out(words)
    assert len(after.correct) == 2500
    assert expected_error(*after) < 0.05
    # A speaker whose words are all wrong does not help itself.
    words = {"a": ScoredWords(np.full(99, 0.9), np.ones(99, bool))}
    words["b"] = ScoredWords(np.full(99, 0.9), np.zeros(99, bool))
    assert expected_error(*held_out(words)) > 0.95


@pytest.mark.parametrize("speakers", [0, 1])
def test_one_speaker_is_not_enough(speakers):
    with pytest.raises(LASError, match="not two speakers"):
        held_out({f"s{n}": drawn(n, 50) for n in range(speakers)})


# --- words ----------------------------------------------------------------------------------


def test_words_are_judged_by_the_alignment():
    log_probs = np.log([0.5] * 2 + [0.25] * 2 + [0.5] * 2 + [0.5])
    wrote = hypothesis("A B CD", np.ones((6, 3)) / 3, list(log_probs))
    ((first, second, third),) = calibrate.word_outcomes(["u"], ["A X CD"], [wrote])
    assert [right for _, right in (first, second, third)] == [True, False, True]
    assert [p for p, _ in (first, second, third)] == [
        word.probability for word in timed_words(wrote, 0.04, 0.0)
    ]


# --- the command ----------------------------------------------------------------------------


def test_the_command(model, manifest, monkeypatch, capsys):
    speakers = calibrate.score_words(small_model().eval(), [manifest], torch.device("cpu"))
    found = {f"s{n}": drawn(n, 500) for n in range(4)}
    monkeypatch.setattr(calibrate, "score_words", lambda *_: found)
    status, out, err = run_main(monkeypatch, capsys, "calibrate", model, manifest)
    assert (status, err) == (0, "")
    assert "2000 words of 4 speakers" in out
    report = json.loads((model / "calibration.json").read_text())
    before, after = (report[k]["expected_calibration_error"] for k in ("before", "held_out"))
    assert before > 0.2 and after < 0.05
    assert f"{before:.3f} before calibration, {after:.3f} after it" in out
    stored = word_confidence.stored(model)
    assert stored.model_dump() == report["chosen"]
    assert report["command"] == f"las calibrate {model} {manifest}"
    assert set(speakers)  # of the manifest itself
    _, out, _ = run_main(monkeypatch, capsys, "info", model)
    assert f"confidence: calibrated (slope {stored.slope:.3g}, offset" in out


def test_a_manifest_that_is_not_there(model, tmp_path, monkeypatch, capsys):
    status, _, err = run_main(monkeypatch, capsys, "calibrate", model, tmp_path / "no.jsonl.gz")
    assert status == 1
    assert "no such manifest" in error_line(err)
