"""What recognisers write -> words as transcripts have them: numbers and abbreviations spoken.

The same is done to references and hypotheses. It is for English, and small: it settles what would
else be counted as an error of whoever writes "1,200" for "twelve hundred" only where one reading
is by far the most common. Four digits from 1100 to 2099 are read as years. Spelling (colour,
color) is left as it is.
"""

import re
import unicodedata

from las.text.characters import ALPHABET
from las.text.normalizer import normalise
from las.text.numbers import ONES, cardinal, ordinal, year

_WRITTEN = {"MR": "MISTER", "MRS": "MISSUS", "DR": "DOCTOR", "OK": "OKAY"}
_SIGNS = {"&": " and ", "%": " percent ", "+": " plus ", "=": " equals ", "@": " at "}
_NUMBER = re.compile(
    r"([$£])?(\d+(?:,\d{3})+|\d+)(?:\.(\d+))?(?:(st|nd|rd|th|s)\b)?", re.IGNORECASE
)
_MONEY = {"$": "dollar", "£": "pound"}
_LARGEST = 10**12  # beyond it digits are read one by one


def spoken(text: str) -> str:
    """A text in upper case, of letters and apostrophes alone, numbers in words."""
    # First, because it makes digits of their like.
    text = unicodedata.normalize("NFKC", text)
    text = _NUMBER.sub(lambda match: f" {_number(match)} ", text)
    for sign, word in _SIGNS.items():
        text = text.replace(sign, word)
    letters = "".join(c if c in ALPHABET else " " for c in normalise(text))
    # Again: an apostrophe may have been left alone.
    return " ".join(_WRITTEN.get(word, word) for word in normalise(letters).split())


def _number(match: re.Match[str]) -> str:
    money, digits, fraction, ending = match.groups()
    number = int(digits.replace(",", ""))
    # A leading zero is of a telephone number or a code.
    coded = number >= _LARGEST or (len(digits) > 1 and digits[0] == "0")
    if coded:
        words = " ".join(ONES[int(digit)] for digit in digits.replace(",", ""))
    elif len(digits) == 4 and 1100 <= number < 2100 and not (money or fraction):
        words = year(number)
    else:
        words = cardinal(number)
    if money:
        one = number == 1 and not fraction
        words += f" {_MONEY[money]}{'' if one else 's'}"
        return f"{words} {cardinal(int(fraction[:2].ljust(2, '0')))}" if fraction else words
    if fraction:
        words += " point " + " ".join(ONES[int(digit)] for digit in fraction)
    if ending and ending.lower() != "s":
        return ordinal(words)
    if ending:  # the 1860s, in his 30s
        return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"
    return words
