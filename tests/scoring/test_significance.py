"""Paired bootstrap: against another derivation, its symmetries, and reports that do not fit."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import error_line, run_main

from las.errors import LASError
from las.scoring.significance import compare, compare_reports
from las.scoring.wer import Utterance, score, write_reports

counts = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 20)), min_size=1, max_size=30
)


def columns(rows):
    return (np.array(column) for column in zip(*rows, strict=True))


@given(counts, st.integers(0, 99))
@settings(max_examples=40)
def test_exchanging_the_systems_turns_the_result_around(rows, seed):
    a, b, words = columns(rows)
    there = compare(a, b, words, samples=300, seed=seed)
    back = compare(b, a, words, samples=300, seed=seed)
    assert there.difference == -back.difference
    assert there.low == pytest.approx(-back.high)
    assert there.improvement == pytest.approx(1 - back.improvement)
    assert there.p == back.p
    assert (there.better, there.worse) == (back.worse, back.better)
    assert there.low <= there.high
    assert there.difference == pytest.approx(there.wer_b - there.wer_a)


@given(counts)
@settings(max_examples=20)
def test_a_system_against_itself_shows_nothing(rows):
    a, _, words = columns(rows)
    same = compare(a, a, words, samples=50)
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    assert (same.improvement, same.p) == (0.5, 1.0)


def test_the_interval_is_that_of_the_normal_approximation():
    random = np.random.default_rng(3)
    words = np.full(2000, 10)
    hard = random.poisson(2, 2000)  # shared: cancels in the pair
    a, b = hard + random.binomial(1, 0.3, 2000), hard + random.binomial(1, 0.2, 2000)
    result = compare(a, b, words, samples=4000)
    error = (b - a).std() / np.sqrt(2000) * 10  # percent of 10 words
    assert result.low == pytest.approx(result.difference - 1.96 * error, abs=0.12 * error)
    assert result.high == pytest.approx(result.difference + 1.96 * error, abs=0.12 * error)
    assert result.p < 0.01
    assert result.improvement > 0.99
    alone = b.std() / np.sqrt(2000) * 10
    assert error < 0.6 * alone  # pairing tells apart what the systems' own intervals cannot


def test_chance_is_rarely_called_a_difference():
    random = np.random.default_rng(4)
    found = 0
    for trial in range(200):
        a, b = random.poisson(1, (2, 150))
        result = compare(a, b, np.full(150, 10), samples=400, seed=trial)
        found += not result.low <= 0 <= result.high
    assert 2 <= found <= 22  # 5 % of 200 are 10


def report(folder, name, texts, references=("ONE TWO THREE", "FOUR FIVE", "SIX")):
    rows = [Utterance(str(n), r, t) for n, (r, t) in enumerate(zip(references, texts, strict=True))]
    return write_reports(folder / name, rows, score(rows, bootstrap=10), texts=False)[1]


def test_reports_are_compared_by_the_command(tmp_path, monkeypatch, capsys):
    a = report(tmp_path, "a", ["ONE TWO THREE", "FOR FIVE", "SIX"])
    b = report(tmp_path, "b", ["ONE TWO", "FOUR FIVE FIVE", "SIXES"])
    found = compare_reports(a, b, samples=100)
    assert (found.better, found.worse, found.words) == (0, 2, 6)
    assert found.difference == pytest.approx(100 * 2 / 6)
    output = tmp_path / "result.json"
    status, out, _ = run_main(monkeypatch, capsys, "compare", a, b, "--output", output)
    assert status == 0
    assert "+33.33 % absolute" in out
    assert json.loads(output.read_text())["difference"] == found.difference


def test_what_cannot_be_compared_is_one_line(tmp_path, monkeypatch, capsys):
    a = report(tmp_path, "a", ["ONE TWO THREE", "FOR FIVE", "SIX"])
    fewer = report(tmp_path, "fewer", ["ONE", "TWO"], ["ONE", "TWO"])
    other = report(tmp_path, "other", ["ONE", "TWO", "SIX"], ["ONE", "TWO", "SIX"])
    broken = tmp_path / "broken.json"
    broken.write_text('{"utterances": [{"id": 3}]}')
    cases = [
        (fewer, "evaluate both systems on one manifest"),
        (other, "reference words"),
        (broken, "not a report of `las evaluate`"),
        (tmp_path / "none.json", "cannot read"),
    ]
    for path, reason in cases:
        status, _, err = run_main(monkeypatch, capsys, "compare", a, path)
        assert status == 1
        assert reason in error_line(err)
        assert str(path) in err


def test_settings_out_of_range_are_refused():
    one = np.array([1])
    for change in ({"samples": 0}, {"interval": 1.0}):
        with pytest.raises(LASError):
            compare(one, one, one, **change)
    with pytest.raises(LASError, match="no word"):
        compare(one, one, np.array([0]))
