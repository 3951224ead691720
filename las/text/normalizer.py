"""Text normalisation: case, accents, punctuation and white space."""

import re
import unicodedata
from typing import Literal

from las.errors import LASError

_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u0060\u00b4"), "'")
_SEPARATORS = re.compile(r"[\u2010-\u2015\-/_]+")
_PUNCTUATION = re.compile(r"[.,;:!?\"()\[\]{}\u201c\u201d\u2026]+")
_LONE_APOSTROPHE = re.compile(r"(?<!\S)'+(?!\S)")
Normalizer = Literal["english", "upper", "none"]


def normalise(text: str, normalizer: Normalizer = "english") -> str:
    """Normalise a transcript.

    All normalizers collapse white space. The result may contain characters outside an alphabet,
    such as digits: the caller refuses these, because how a digit is pronounced is not known here.

    Args:
        text: any text.
        normalizer: "none" keeps case and punctuation, in Unicode's NFC (a letter and its accent are
            one character). "upper" converts to upper case, typographic apostrophes to ``'``,
            hyphens and dashes to spaces, and removes other punctuation. "english" also removes
            accents.
    """
    if normalizer == "none":
        return " ".join(unicodedata.normalize("NFC", text).split())
    if normalizer == "english":
        # Before NFKD, which decomposes an acute accent, and after it, as it creates others.
        text = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).translate(_APOSTROPHES)
        text = "".join(c for c in text if not unicodedata.combining(c))
        text = text.upper()
    else:  # the upper case of some letters is several characters, which NFC may compose
        text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES).upper()
        text = unicodedata.normalize("NFC", text)
    text = _PUNCTUATION.sub(" ", _SEPARATORS.sub(" ", text))
    return " ".join(_LONE_APOSTROPHE.sub(" ", text).split())


def check_alphabet(alphabet: str, normalizer: Normalizer) -> None:
    """Refuse an alphabet with characters that the normalizer removes.

    Raises:
        LASError: it repeats a character, or has one that no normalised text contains.
    """
    if len(set(alphabet)) != len(alphabet):
        raise LASError(f"alphabet {alphabet!r} repeats a character")
    strange = "".join(c for c in alphabet if c not in normalise(f"X{c}X", normalizer))
    if strange:
        raise LASError(
            f"alphabet {alphabet!r}: the normalizer {normalizer} removes or changes {strange!r}; "
            "choose another by text.normalizer or --normalizer, or leave these characters out"
        )
