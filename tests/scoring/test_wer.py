"""Error rates against values worked out by hand, properties, and what the reports hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from las.errors import LASError
from las.scoring import wer
from las.scoring.wer import (
    Score,
    Utterance,
    bootstrap_interval,
    report_json,
    report_text,
    score,
    write_reports,
)

# 3 + 4 + 2 = 9 words; 1 S; 1 D + 1 S; 1 I; one utterance is right.
EXAMPLE = [
    Utterance("u1", "THE CAT SAT", "THE BAT SAT"),
    Utterance("u2", "ON THE RED MAT", "ON A MAT"),
    Utterance("u3", "", "UH"),
    Utterance("u4", "GOOD DAY", "GOOD DAY"),
]

sentences = st.lists(st.sampled_from(["A", "B", "CAT", "CART", "X'S"]), max_size=6).map(" ".join)
corpora = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=8).map(
    lambda pairs: [Utterance(f"u{i}", "A " + r, h) for i, (r, h) in enumerate(pairs)]
)
quick = settings(max_examples=60, deadline=None)


def edit_distance(a: list[str], b: list[str]) -> int:
    """The textbook table of V. Levenshtein's distance, written apart from the code under test."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


# --- values ---------------------------------------------------------------------------------


def test_values_by_hand():
    result = score(EXAMPLE)
    assert (result.substitutions, result.deletions, result.insertions) == (2, 1, 1)
    assert (result.hits, result.words, result.utterances) == (6, 9, 4)
    assert result.wer == pytest.approx(100 * 4 / 9)
    assert result.sentence_error_rate == 75.0
    # C->B; "THE RED" -> "A": 7 characters, none of them kept, so 7; "UH" is 2.
    assert result.characters == 11 + 14 + 0 + 8
    assert result.cer == pytest.approx(100 * (1 + 7 + 2) / 33)


def test_top_errors_by_count_then_alphabet():
    pairs = [("B", "X"), ("A", "X"), ("C", "X"), ("C", "X"), ("D", ""), ("", "Y"), ("", "Y")]
    result = score([Utterance(str(i), f"Q {r}", f"Q {h}") for i, (r, h) in enumerate(pairs)])
    assert result.top_substitutions == (("C -> X", 2), ("A -> X", 1), ("B -> X", 1))
    assert result.top_deletions == (("D", 1),)
    assert result.top_insertions == (("Y", 2),)


def test_top_errors_are_ten_at_most():
    letters = "NMLKJIHGFEDCBA"
    result = score([Utterance(c, c, "") for c in letters])
    assert [item for item, _ in result.top_deletions] == sorted(letters)[:10]


def test_empty_hypothesis_deletes_everything():
    result = score([Utterance("u", "A B C", "")])
    assert (result.deletions, result.wer, result.cer) == (3, 100.0, 100.0)
    assert result.wer_interval == (100.0, 100.0)


def test_empty_reference_counts_insertions():
    result = score([Utterance("u1", "A B", "A B"), Utterance("u2", "", "C D E")])
    assert (result.insertions, result.words) == (3, 2)
    assert result.wer == 150.0
    assert result.sentence_error_rate == 50.0


def test_whitespace_is_collapsed_and_nothing_else():
    assert score([Utterance("u", "  A\t B\n", "A \u00a0 B")]).wer == 0
    assert score([Utterance("u", "A b", "A B")]).substitutions == 1
    assert score([Utterance("u", "A B", "A B.")]).substitutions == 1


@pytest.mark.parametrize(
    ("utterances", "options", "words"),
    [
        ([], {}, "at least one reference word"),
        ([Utterance("u", "  ", "A")], {}, "at least one reference word"),
        ([Utterance("u", "A", "A"), Utterance("u", "B", "B")], {}, "'u' occurs more than once"),
        (EXAMPLE, {"bootstrap": 0}, "at least 1 sample"),
        (EXAMPLE, {"interval": 95}, "between 0 and 1"),
    ],
    ids=["none", "empty", "twice", "bootstrap", "level"],
)
def test_what_cannot_be_scored(utterances, options, words):
    with pytest.raises(LASError, match=words) as caught:
        score(utterances, **options)
    assert len(str(caught.value).splitlines()) == 1


# --- properties -----------------------------------------------------------------------------


@quick
@given(corpora)
def test_counts_agree_with_the_edit_distance(corpus):
    result = score(corpus, bootstrap=2)
    errors = [edit_distance(u.reference.split(), u.hypothesis.split()) for u in corpus]
    letters = [
        edit_distance(list(" ".join(u.reference.split())), list(u.hypothesis)) for u in corpus
    ]
    assert result.substitutions + result.deletions + result.insertions == sum(errors)
    assert result.substitutions + result.deletions + result.hits == result.words
    assert result.words == sum(len(u.reference.split()) for u in corpus)
    assert result.wer == pytest.approx(100 * sum(errors) / result.words)
    assert result.cer == pytest.approx(100 * sum(letters) / result.characters)
    wrong = sum(error > 0 for error in errors)
    assert result.sentence_error_rate == pytest.approx(100 * wrong / len(corpus))


@quick
@given(corpora)
def test_identical_texts_have_no_errors(corpus):
    result = score([Utterance(u.id, u.reference, u.reference) for u in corpus], bootstrap=5)
    assert result.wer == result.cer == result.sentence_error_rate == 0
    assert result.wer_interval == result.cer_interval == (0, 0)
    assert result.hits == result.words


@quick
@given(corpora, st.randoms(use_true_random=False))
def test_order_of_utterances_changes_no_rate(corpus, random):
    shuffled = random.sample(corpus, len(corpus))
    one, other = score(corpus, bootstrap=2), score(shuffled, bootstrap=2)
    for field in set(vars(Score)["__dataclass_fields__"]) - {"wer_interval", "cer_interval"}:
        assert getattr(one, field) == getattr(other, field), field


@quick
@given(corpora)
def test_swapping_the_sides_swaps_deletions_and_insertions_in_sum(corpus):
    # Which of several cheapest alignments is taken may differ, the cost and the balance may not.
    swapped = [Utterance(u.id, u.hypothesis or "", u.reference) for u in corpus]
    if not any(u.reference.split() for u in swapped):
        return
    one, other = score(corpus, bootstrap=200), score(swapped, bootstrap=200)
    assert one.deletions - one.insertions == other.insertions - other.deletions
    assert one.wer * one.words == pytest.approx(other.wer * other.words)


@quick
@given(corpora, st.integers(0, 2**32), st.floats(0.01, 0.99))
def test_interval_is_ordered_and_within_what_utterances_reach(corpus, seed, level):
    result = score(corpus, bootstrap=20, seed=seed, interval=level)
    low, high = result.wer_interval
    rates = [
        100 * edit_distance(u.reference.split(), u.hypothesis.split()) / len(u.reference.split())
        for u in corpus
    ]
    assert min(rates) - 1e-9 <= low <= high <= max(rates) + 1e-9
    assert result == score(corpus, bootstrap=20, seed=seed, interval=level)


# --- bootstrap ------------------------------------------------------------------------------


def errors_and_words(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    words = random.integers(0, 30, size=count)
    return random.binomial(words + 1, 0.1), words


@pytest.mark.parametrize("at_once", [1, 300, 1 << 20])
def test_bootstrap_agrees_with_a_plain_loop(monkeypatch, at_once):
    monkeypatch.setattr(wer, "_DRAWN_AT_ONCE", at_once)
    errors, words = errors_and_words(83)
    random = np.random.default_rng(3)
    rates = []
    for _ in range(250):
        wrong = said = 0
        for i in random.integers(83, size=83):
            wrong += int(errors[i])
            said += int(words[i])
        rates.append(100 * wrong / said)
    expected = np.percentile(rates, [5, 95])
    np.testing.assert_allclose(bootstrap_interval(errors, words, 250, 3, 0.9), expected, rtol=1e-12)


def test_interval_has_the_width_of_the_normal_approximation():
    # One word an utterance: the rate is a mean of N coins, its deviation sqrt(p (1 - p) / N).
    errors = np.repeat([1, 0], [200, 800])
    low, high = bootstrap_interval(errors, np.ones(1000, int), 4000, 0, 0.95)
    half = 100 * 1.96 * np.sqrt(0.2 * 0.8 / 1000)
    assert low == pytest.approx(20 - half, abs=0.3)
    assert high == pytest.approx(20 + half, abs=0.3)


def test_another_seed_draws_other_samples():
    errors, words = errors_and_words(83)
    assert bootstrap_interval(errors, words, 99, 0, 0.9) != bootstrap_interval(
        errors, words, 99, 1, 0.9
    )


def test_samples_without_a_word_are_left_out():
    errors, words = np.array([1, 1, 1, 1]), np.array([2, 0, 0, 0])
    low, high = bootstrap_interval(errors, words, 200, 0, 0.95)
    assert 50 <= low <= high < np.inf
    with pytest.raises(LASError, match="no reference word"):
        bootstrap_interval(np.zeros(500, int), np.r_[1, np.zeros(499, int)], 1, 0, 0.95)


# --- reports --------------------------------------------------------------------------------


def test_report_text():
    text = report_text(EXAMPLE, score(EXAMPLE))
    assert text.startswith("WER   44.44 %  95% interval ")
    assert "hits 6, substitutions 2, deletions 1, insertions 1" in text
    assert "     1  CAT -> BAT" in text
    assert text.index("\nu2: ") < text.index("\nu1: ") < text.index("\nu3: ")
    assert (
        "u1: 1 S, 0 D, 0 I in 3 reference words\nREF: THE CAT SAT\nHYP: THE BAT SAT\n         S\n"
    ) in text
    assert text.endswith("REF: ***\nHYP: UH\n     I\n")


@quick
@given(corpora)
def test_aligned_lines_hold_both_texts(corpus):
    text = report_text(corpus, score(corpus, bootstrap=2))
    for utterance in corpus:
        reference, hypothesis = utterance.reference.split(), utterance.hypothesis.split()
        if reference == hypothesis:
            assert f"\n{utterance.id}: " not in text
            continue
        lines = text.split(f"\n{utterance.id}: ")[1].splitlines()[1:4]
        assert [w for w in lines[0][4:].split() if w != "***"] == reference
        assert [w for w in lines[1][4:].split() if w != "***"] == hypothesis
        assert len(lines[2].split()) == edit_distance(reference, hypothesis)


def test_long_utterances_are_broken_between_words():
    words = [f"WORD{i}" for i in range(100)]
    corpus = [Utterance("u", " ".join(words), " ".join(["OTHER", *words[1:]]))]
    lines = report_text(corpus, score(corpus)).splitlines()
    assert max(map(len, lines)) <= 100
    assert [w for line in lines if line.startswith("REF:") for w in line[4:].split()] == words


def test_report_json():
    result = score(EXAMPLE)
    report = report_json(EXAMPLE, result, command="las evaluate", versions={"torch": "2.11"})
    assert json.loads(json.dumps(report)) == report
    assert report["wer"] == result.wer and report["cer"] == result.cer
    assert report["ser"] == 75.0 and "sentence_error_rate" not in report
    assert report["wer_interval"] == list(result.wer_interval)
    assert report["top_substitutions"] == [["CAT -> BAT", 1], *report["top_substitutions"][1:]]
    assert report["utterances"][1] == {
        "id": "u2",
        "reference": "ON THE RED MAT",
        "hypothesis": "ON A MAT",
        "words": 4,
        "substitutions": 1,
        "deletions": 1,
        "insertions": 0,
    }
    assert report["command"] == "las evaluate" and report["versions"] == {"torch": "2.11"}
    for name in ("substitutions", "deletions", "insertions"):
        assert report[name] == sum(u[name] for u in report["utterances"])


def test_extra_entries_do_not_replace_the_reports_own():
    with pytest.raises(ValueError, match="wer"):
        report_json(EXAMPLE, score(EXAMPLE), wer=0.0)


def test_write_reports(tmp_path):
    result = score(EXAMPLE)
    paths = write_reports(tmp_path / "new" / "test.clean", EXAMPLE, result, device="cpu")
    assert [path.name for path in paths] == ["test.clean.txt", "test.clean.json"]
    assert paths[0].read_text() == report_text(EXAMPLE, result)
    assert json.loads(paths[1].read_text()) == report_json(EXAMPLE, result, device="cpu")
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(p.name for p in paths)


def test_write_reports_into_a_folder(tmp_path):
    paths = write_reports(tmp_path, EXAMPLE, score(EXAMPLE))
    assert paths == (tmp_path / "report.txt", tmp_path / "report.json")


@pytest.mark.parametrize("method", ["write_text", "replace"])
def test_failure_leaves_old_reports_and_no_parts(tmp_path, monkeypatch, method):
    result = score(EXAMPLE)
    old = {path: path.read_text() for path in write_reports(tmp_path / "r", EXAMPLE, result)}
    original = Path.write_text

    def fails(self, *args, **kwargs):
        if method == "write_text":
            original(self, "half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, method, fails)
    with pytest.raises(LASError, match="No space left on device"):
        write_reports(tmp_path / "r", EXAMPLE[:2], score(EXAMPLE[:2]))
    assert {path: path.read_text() for path in tmp_path.iterdir()} == old


def test_what_json_cannot_hold_writes_nothing(tmp_path):
    with pytest.raises((TypeError, ValueError)):
        write_reports(tmp_path / "r", EXAMPLE, score(EXAMPLE), device=object())
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LASError, match="a file is in its place") as caught:
        write_reports(tmp_path / "file" / "r", EXAMPLE, score(EXAMPLE))
    assert str(tmp_path / "file") in str(caught.value)


def test_a_report_without_texts_has_the_counts():
    pair = [Utterance("a", "GO ON", "GO"), Utterance("b", "STOP", "STOP")]
    report = report_json(pair, score(pair), texts=False)
    assert report["utterances"] == [
        {"id": "a", "words": 2, "substitutions": 0, "deletions": 1, "insertions": 0},
        {"id": "b", "words": 1, "substitutions": 0, "deletions": 0, "insertions": 0},
    ]
