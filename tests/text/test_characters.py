"""Transcripts as ids and back, and what folding leaves of a text."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.errors import LASError
from las.text.characters import ALPHABET, BLANK, EOS, Characters, ctc_frames, outside
from las.text.normalizer import normalise

transcripts = st.text(ALPHABET, max_size=30)


# --- folding --------------------------------------------------------------------------------


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


def test_outside_names_each_character_once_in_order():
    assert outside("B2A1B2") == "12"
    assert outside("ABBA", "A") == "B"


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


# --- ids ------------------------------------------------------------------------------------


@given(transcripts)
def test_round_trip(text):
    characters = Characters()
    ids = characters.encode(text)
    assert characters.decode(ids) == text
    assert all(EOS < i < len(characters) for i in ids)


@given(st.sets(st.characters(codec="utf-8"), min_size=1, max_size=20), st.data())
def test_round_trip_of_any_alphabet(letters, data):
    alphabet = "".join(sorted(letters))
    text = data.draw(st.text(alphabet, max_size=20))
    characters = Characters(alphabet)
    assert characters.decode(characters.encode(text)) == text
    assert characters.encode(alphabet) == list(range(2, len(characters)))


@given(transcripts, transcripts)
def test_decoding_stops_at_the_end_and_passes_over_blanks(text, rest):
    characters = Characters()
    ids = [i for c in characters.encode(text) for i in (BLANK, c)]
    assert characters.decode([*ids, EOS, *characters.encode(rest)]) == text


def test_ids_by_hand():
    characters = Characters("AB")
    assert len(characters) == 4
    assert characters.encode("BA") == [3, 2]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Characters().encode("A4 B\n4"), r"'\n4'"),
        (lambda: Characters("AB").encode("C"), "'C'"),
        (lambda: Characters(""), "''"),
        (lambda: Characters("ABA"), "'ABA'"),
    ],
)
def test_errors_are_one_line_that_names_the_fault(make, names):
    with pytest.raises(LASError) as caught:
        make()
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


# --- CTC ------------------------------------------------------------------------------------


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    """CTC's reading of a path (Graves et al. 2006): repeats become one, then blanks go."""
    return tuple(i for i, _ in itertools.groupby(path) if i != BLANK)


def test_ctc_frames_are_the_shortest_path_of_all():
    shortest: dict[tuple[int, ...], int] = {}
    for frames in range(8):
        for path in itertools.product((BLANK, 2, 3), repeat=frames):
            shortest.setdefault(collapse(path), frames)
    checked = [ids for length in range(5) for ids in itertools.product((2, 3), repeat=length)]
    assert len(checked) == 31
    for ids in checked:
        assert ctc_frames(ids) == shortest[ids]
