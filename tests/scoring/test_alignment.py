"""Aligned words: the least errors there can be, and both texts in order."""

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from las.scoring.alignment import Utterance, align, aligned_lines, character_counts

words = st.lists(st.sampled_from(["A", "B", "AB", "BA"]), max_size=7)


def distance(a, b) -> int:
    """Levenshtein's, by its definition."""

    @cache
    def between(i, j):
        if i == 0 or j == 0:
            return i + j
        same = between(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(same, between(i - 1, j) + 1, between(i, j - 1) + 1)

    return between(len(a), len(b))


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_steps_tell_both_texts_with_the_least_errors(pairs):
    utterances = [Utterance(str(i), " ".join(r), " ".join(h)) for i, (r, h) in enumerate(pairs)]
    for (reference, hypothesis), aligned in zip(pairs, align(utterances), strict=True):
        assert [said for _, said, _ in aligned.steps if said] == reference
        assert [heard for _, _, heard in aligned.steps if heard] == hypothesis
        assert aligned.errors == distance(reference, hypothesis)
        assert aligned.words == len(reference)
        for mark, said, heard in aligned.steps:
            assert mark == (" " if said == heard else "I" if not said else "S" if heard else "D")
    errors, characters = character_counts(utterances)
    for utterance, count, total in zip(utterances, errors, characters, strict=True):
        assert total == len(utterance.reference)
        assert count == distance(utterance.reference, utterance.hypothesis)


@given(words, words)
def test_lines_stay_below_their_width_and_above_each_other(reference, hypothesis):
    (aligned,) = align([Utterance("a", " ".join(reference * 5), " ".join(hypothesis * 5))])
    lines = aligned_lines(aligned.steps)
    assert all(len(line) <= 100 for line in lines) and len(lines) % 3 == 0
    said = " ".join(line[4:] for line in lines[::3]).replace("***", "").split()
    heard = " ".join(line[4:] for line in lines[1::3]).replace("***", "").split()
    assert said == reference * 5 and heard == hypothesis * 5
