"""Numbers in words."""

from hypothesis import given
from hypothesis import strategies as st

from las.text.numbers import cardinal, ordinal, year


def value(words: str) -> int:
    """A cardinal read back, by scales."""
    known = {cardinal(n): n for n in range(100)}
    total = part = 0
    tens = ""
    for word in [*words.split(), "thousand0"]:
        if word in ("hundred", "thousand", "million", "billion", "thousand0"):
            part += known[tens] if tens else 0
            tens = ""
            if word == "hundred":
                part *= 100
            else:
                scale = {"thousand": 10**3, "million": 10**6, "billion": 10**9}.get(word, 1)
                total, part = total + part * scale, 0
        else:
            tens = f"{tens} {word}".strip()
    return total


@given(st.integers(0, 10**12 - 1))
def test_cardinals_read_back(number):
    assert value(cardinal(number)) == number


def test_years_and_ordinals():
    assert [year(y) for y in (1100, 1865, 2000, 2009, 2010)] == [
        "eleven hundred", "eighteen sixty five", "two thousand", "two thousand nine", "twenty ten"
    ]  # fmt: skip
    found = [ordinal(cardinal(n)) for n in (1, 2, 3, 4, 5, 12, 20, 29, 100)]
    assert found == (
        "first second third fourth fifth twelfth twentieth;twenty ninth;one hundredth"
    ).replace(" ", ";", 6).split(";")
