"""Transcript <-> ids. Every rule about text is here; nothing here knows of audio or models."""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from las.errors import LASError

BLANK = 0  # CTC's blank; the speller never writes it
EOS = 1  # ends a transcript, and is the speller's first input
ALPHABET = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"

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


def outside(text: str, alphabet: str = ALPHABET) -> str:
    """The characters of a text that are not in the alphabet, sorted, each once."""
    return "".join(sorted(set(text) - set(alphabet)))


class Characters:
    """Characters as ids: 0 is CTC's blank, 1 ends a sentence, then the alphabet in its order.

    Args:
        alphabet: each character once.
        normalizer: brings texts into the form that is encoded.

    Raises:
        LASError: the alphabet is empty or repeats a character.
    """

    def __init__(self, alphabet: str = ALPHABET, normalizer: Normalizer = "english") -> None:
        if len(set(alphabet)) != len(alphabet) or not alphabet:
            raise LASError(f"alphabet {alphabet!r} is empty or repeats a character")
        self.alphabet = alphabet
        self.normalizer: Normalizer = normalizer
        self._ids = {c: i for i, c in enumerate(alphabet, start=EOS + 1)}

    def __len__(self) -> int:
        return len(self.alphabet) + EOS + 1

    def normalise(self, text: str) -> str:
        """:func:`normalise` by this model's normalizer."""
        return normalise(text, self.normalizer)

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text, without the end of sentence.

        Raises:
            LASError: a character is not in the alphabet.
        """
        try:
            return [self._ids[c] for c in text]
        except KeyError:
            raise LASError(
                f"characters {outside(text, self.alphabet)!r} of {text!r} are not in the alphabet"
            ) from None

    def written(self, id: int) -> str:
        """What one id writes; nothing for blank and the end of sentence."""
        return self.alphabet[id - EOS - 1] if id > EOS else ""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids up to the first end of sentence; blanks are passed over."""
        letters = []
        for i in ids:
            if i == EOS:
                break
            if i != BLANK:
                letters.append(self.written(i))
        return "".join(letters)


def ctc_frames(ids: Sequence[int]) -> int:
    """Frames that CTC needs at least for these ids: one each, and a blank between repeats."""
    return len(ids) + sum(a == b for a, b in itertools.pairwise(ids))
