"""Folds a transcript into the form in which a model writes."""

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
    """Fold a transcript into the form in which a model writes.

    White space is collapsed by all. What is left may still hold characters outside an alphabet
    (digits, say): these are for the caller to refuse, because how a digit is spoken is not known
    here.

    Args:
        text: any text.
        normalizer: "none" keeps case and punctuation, each letter with its accent as one character
            (NFC); "upper" is upper case, typographic apostrophes as ``'``, hyphens and dashes as
            spaces, without other punctuation; "english" is that without accents.
    """
    if normalizer == "none":
        return " ".join(unicodedata.normalize("NFC", text).split())
    if normalizer == "english":
        # Before, because NFKD takes an acute accent apart; after, because it makes others.
        text = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).translate(_APOSTROPHES)
        text = "".join(c for c in text if not unicodedata.combining(c))
        text = text.upper()
    else:  # in upper case some letters are of several characters, which may be joined
        text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES).upper()
        text = unicodedata.normalize("NFC", text)
    text = _PUNCTUATION.sub(" ", _SEPARATORS.sub(" ", text))
    return " ".join(_LONE_APOSTROPHE.sub(" ", text).split())


def check_alphabet(alphabet: str, normalizer: Normalizer) -> None:
    """Refuse an alphabet of which nothing, or not all, could ever be written.

    Raises:
        LASError: it repeats a character, or holds one that no normalised text has.
    """
    if len(set(alphabet)) != len(alphabet):
        raise LASError(f"alphabet {alphabet!r} repeats a character")
    strange = "".join(c for c in alphabet if c not in normalise(f"X{c}X", normalizer))
    if strange:
        raise LASError(
            f"alphabet {alphabet!r}: the normalizer {normalizer} never leaves {strange!r}; choose "
            "another by text.normalizer or --normalizer, or leave them out"
        )
