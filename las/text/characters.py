"""Transcript <-> ids. Every rule about text is here; nothing here knows of audio or models."""

import itertools
from collections.abc import Iterable, Sequence

from las.errors import LASError
from las.text.normalizer import Normalizer, normalise

BLANK = 0  # CTC's blank; the speller never writes it
EOS = 1  # ends a transcript, and is the speller's first input
ALPHABET = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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
