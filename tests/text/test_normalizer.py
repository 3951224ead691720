"""Normalised transcripts: what is left of a text by each normalizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.text.characters import outside
from las.text.normalizer import normalise
from tests.text.test_characters import transcripts


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Hello, World!", "HELLO WORLD"),
        ("don\u2019t \u2018quote\u2019 me", "DON'T 'QUOTE' ME"),
        ("rock \u2019n\u2019 roll ' '' alone", "ROCK 'N' ROLL ALONE"),
        ("well-known / and\u2014so_on", "WELL KNOWN AND SO ON"),
        ("na\u00efve caf\u00e9, \u00c5ngstr\u00f6m", "NAIVE CAFE ANGSTROM"),
        ("stra\u00dfe \ufb01nd", "STRASSE FIND"),
        (" a\t b\n\u00a0c ", "A B C"),
        ("\u201cwait\u2026\u201d (he said)", "WAIT HE SAID"),
        ("", ""),
        ("...", ""),
        ("\u0149 \u00b4tis", "'N 'TIS"),
    ],
)
def test_folding(text, folded):
    assert normalise(text) == folded


@given(st.text(max_size=40))
def test_folding_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


@given(st.text("aB\u00e9\u00df '\u2019\u0149\uff40.,-\u2014_()\"!\u2026\u0301\t\n", max_size=20))
def test_only_folded_characters_are_left(text):
    folded = normalise(text)
    assert outside(folded) == ""
    assert folded == folded.strip()
    assert "  " not in folded
    assert not any(set(word) == {"'"} for word in folded.split())


@given(transcripts)
def test_a_folded_transcript_is_kept(text):
    words = " ".join(w for w in text.split() if w.strip("'"))
    assert normalise(words) == words


@pytest.mark.parametrize("text", ["ROOM 101", "5\u20ac", "\u65e5\u672c"])
def test_what_cannot_be_folded_is_left_for_the_caller(text):
    assert outside(normalise(text)) != ""


@pytest.mark.parametrize(
    ("text", "upper", "none"),
    [
        ("Stra\u00dfe, \u00fcber!", "STRASSE \u00dcBER", "Stra\u00dfe, \u00fcber!"),
        ("u\u0308ber", "\u00dcBER", "\u00fcber"),
        ("\u0438\u0306 \u0439", "\u0419 \u0419", "\u0439 \u0439"),
        (
            "l\u2019\u00e9t\u00e9 d'o\u00f9",
            "L'\u00c9T\u00c9 D'O\u00d9",
            "l\u2019\u00e9t\u00e9 d'o\u00f9",
        ),
        ("well-known  'a'", "WELL KNOWN 'A'", "well-known 'a'"),
    ],
)
def test_other_languages_keep_their_letters(text, upper, none):
    assert normalise(text, "upper") == upper
    assert normalise(text, "none") == none


@given(st.text(max_size=40), st.sampled_from(["english", "upper", "none"]))
def test_any_normalizer_twice_changes_nothing(text, normalizer):
    once = normalise(text, normalizer)
    assert normalise(once, normalizer) == once
    assert once == " ".join(once.split())
