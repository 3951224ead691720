"""Transcripts as ids and back, and what folding leaves of a text."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.errors import LASError
from las.text.characters import ALPHABET, BLANK, EOS, Characters, ctc_frames, outside

transcripts = st.text(ALPHABET, max_size=30)


def test_outside_names_each_character_once_in_order():
    assert outside("B2A1B2") == "12"
    assert outside("ABBA", "A") == "B"


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
