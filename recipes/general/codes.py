"""Lines as people say codes, numbers, dates, times and prices, for the text of language models.

    python recipes/general/codes.py OUTPUT LINES [SEED]

Books hardly have them, and what a language model has not seen it turns into something else: of
``SIX SIX FOUR SEVEN`` it made ``SIX FOUR SEVENTY``. Letters and digits are drawn evenly, so that
the model has no opinion on them.
"""

import random
import string
import sys
from pathlib import Path

from las.storage.atomic import replacing
from las.text.numbers import ONES, cardinal, ordinal, year

# fmt: off
_MONTHS = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
]
# fmt: on
_UNITS = ["dollars", "pounds", "percent", "degrees", "miles", "feet", "minutes", "years"]


def line(draw: random.Random) -> str:
    """One line, in upper case."""
    kinds = [_letters, _digits, _letters_and_number, _number, _date, _year, _time, _amount]
    return draw.choices(kinds, weights=[3, 3, 3, 2, 1, 1, 0.5, 0.5])[0](draw).upper()


def _letters(draw: random.Random) -> str:
    return " ".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 7)))


def _digits(draw: random.Random) -> str:
    zero = draw.choice(["zero", "oh"])  # who says one does not say the other
    digits = draw.choices(range(10), k=draw.choice([2, 3, 4, 5, 5, 6, 7, 7, 8, 10]))
    return " ".join(ONES[digit] if digit else zero for digit in digits)


def _letters_and_number(draw: random.Random) -> str:
    parts = [_letters(draw), draw.choice([_digits, _number])(draw)]
    return " ".join(parts if draw.random() < 0.7 else parts[::-1])


def _number(draw: random.Random) -> str:
    number = draw.randrange(10 ** draw.choice([2, 2, 3, 3, 4, 5]))
    if 100 < number < 1000 and draw.random() < 0.5:  # as of a house: four sixteen
        front, back = divmod(number, 100)
        return f"{cardinal(front)} {'oh ' if back < 10 else ''}{cardinal(back)}"
    return cardinal(number)


def _year(draw: random.Random) -> str:
    return year(draw.randint(1800, 2030))


def _date(draw: random.Random) -> str:
    month, day = draw.choice(_MONTHS), cardinal(draw.randint(1, 31))
    day = ordinal(day) if draw.random() < 0.7 else day
    said = f"the {day} of {month}" if draw.random() < 0.2 else f"{month} {day}"
    return f"{said} {_year(draw)}" if draw.random() < 0.7 else said


def _time(draw: random.Random) -> str:
    hour, minute = cardinal(draw.randint(1, 12)), draw.choice([*range(0, 60, 5), *range(60)])
    past = "o'clock" if minute == 0 else f"{'oh ' if minute < 10 else ''}{cardinal(minute)}"
    return f"{hour} {past}" + draw.choice(["", "", " a m", " p m"])


def _amount(draw: random.Random) -> str:
    return f"{_number(draw)} {draw.choice(_UNITS)}"


def main() -> None:
    """Read the arguments."""
    if not 3 <= len(sys.argv) <= 4 or not all(word.isdigit() for word in sys.argv[2:]):
        sys.exit("error: codes.py wants OUTPUT LINES [SEED]")
    draw = random.Random(int(sys.argv[3]) if len(sys.argv) == 4 else 0)
    try:
        with replacing(Path(sys.argv[1])) as temporary, temporary.open("w") as file:
            file.writelines(f"{line(draw)}\n" for _ in range(int(sys.argv[2])))
    except OSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
