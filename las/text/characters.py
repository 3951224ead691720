"""Transcripts as ids of characters, and back."""

import itertools
from collections.abc import Iterable, Sequence

from las.errors import LASError
from las.text.normalizer import Normalizer, normalise

BLANK = 0  # of CTC; the speller never predicts it
EOS = 1  # end of sentence; also the first input of the speller
ALPHABET = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def outside(text: str, alphabet: str = ALPHABET) -> str:
    """The distinct characters of a text that are not in the alphabet, sorted."""
    return "".join(sorted(set(text) - set(alphabet)))


class Characters:
    """Characters as ids: 0 is the blank of CTC, 1 the end of sentence, then the alphabet in order.

    Args:
        alphabet: the characters, each once.
        normalizer: of the texts that are encoded.

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
        """Apply :func:`las.text.normalizer.normalise` with this model's normalizer."""
        return normalise(text, self.normalizer)

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text, without an end of sentence.

        Raises:
            LASError: a character is not in the alphabet.
        """
        try:
            return [self._ids[c] for c in text]
        except KeyError:
            raise LASError(
                f"characters {outside(text, self.alphabet)!r} of {text!r} are not in the alphabet"
            ) from None

    def symbol(self, id: int) -> str:
        """The text of one id; empty for blank and end of sentence."""
        return self.alphabet[id - EOS - 1] if id > EOS else ""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids up to the first end of sentence; blanks are skipped."""
        characters = []
        for i in ids:
            if i == EOS:
                break
            if i != BLANK:
                characters.append(self.symbol(i))
        return "".join(characters)


def ctc_frames(ids: Sequence[int]) -> int:
    """Minimum number of frames that CTC needs: one for each id, and a blank between repeats."""
    return len(ids) + sum(a == b for a, b in itertools.pairwise(ids))
