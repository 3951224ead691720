"""English numbers in words, in lower case, as Americans say them."""

# fmt: off
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]
_TENS = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
]
# fmt: on
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"))
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(number: int) -> str:
    """A number of 0 to 10 ** 12 - 1 in words, without an "and"."""
    if number < 20:
        return ONES[number]
    if number < 100:
        rest = number % 10
        return _TENS[number // 10] + (f" {ONES[rest]}" if rest else "")
    scale, name = next(((s, n) for s, n in _SCALES if number >= s), (100, "hundred"))
    front = f"{cardinal(number // scale)} {name}"
    return f"{front} {cardinal(number % scale)}" if number % scale else front


def year(number: int) -> str:
    """Four digits by twos: eighteen sixty five, nineteen hundred, two thousand and such."""
    front, back = divmod(number, 100)
    if back == 0 and front % 10:
        return f"{cardinal(front)} hundred"
    if front % 10 == 0 and back < 10:
        return cardinal(number)
    return f"{cardinal(front)} {'oh ' if back < 10 else ''}{cardinal(back)}"


def ordinal(words: str) -> str:
    """The ordinal of a cardinal in words."""
    *front, last = words.split()
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return " ".join([*front, last])
