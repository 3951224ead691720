"""Byte-pair encoding: pieces of words as ids beside single characters (Sennrich et al. 2016).

A piece belongs to one word; a space before it marks the start of the word, of a sentence's first
word, too. sentencepiece finds the pieces; they are kept in the order of their merges, which is all
that encoding needs, so that a trained model needs no file beside its own.
"""

import itertools
import re
import tempfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from las.errors import LASError
from las.text.characters import BLANK, EOS, Characters
from las.text.normalizer import Normalizer

_SPACE = "\u2581"  # sentencepiece's


class Pieces(Characters):
    """Ids of characters, as they are without pieces, and after them the pieces in their order.

    Args:
        alphabet: with a space in it.
        pieces: two characters or more each, in the order in which they are merged.
        normalizer: as of :class:`las.text.characters.Characters`.

    Raises:
        LASError: a piece is not made of the alphabet, spans words, or occurs twice.
    """

    def __init__(
        self, alphabet: str, pieces: Sequence[str], normalizer: Normalizer = "english"
    ) -> None:
        super().__init__(alphabet, normalizer)
        if " " not in alphabet:
            raise LASError(f"alphabet {alphabet!r} needs a space for pieces to start words with")
        self.pieces = tuple(pieces)
        for piece in self.pieces:
            if len(piece) < 2 or " " in piece[1:] or not set(alphabet).issuperset(piece):
                raise LASError(
                    f"piece {piece!r}: not two or more characters of one word over {alphabet!r}"
                )
        if len(set(self.pieces)) != len(self.pieces):
            raise LASError("a piece occurs twice")
        self._units = [*alphabet, *self.pieces]
        self._rank = {piece: rank for rank, piece in enumerate(self.pieces)}
        self._unit_ids = {unit: i for i, unit in enumerate(self._units, start=EOS + 1)}
        self._word = lru_cache(maxsize=1 << 16)(self._merge)

    def __len__(self) -> int:
        return len(self._units) + EOS + 1

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text, without the end of sentence.

        Raises:
            LASError: a character is not in the alphabet.
        """
        super().encode(text)  # refuses what is not in the alphabet
        ids: list[int] = []
        for word in text.split(" ") if text else []:
            ids += self._word(" " + word)
        return ids

    def written(self, id: int) -> str:
        """What one id writes; nothing for blank and the end of sentence."""
        return self._units[id - EOS - 1] if id > EOS else ""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids up to the first end of sentence; blanks are passed over."""
        text = ""
        for i in ids:
            if i == EOS:
                break
            if i != BLANK:
                text += self.written(i)
        return text.removeprefix(" ")

    def spell(self, ids: Sequence[int]) -> list[list[int]]:
        """Ids of the characters that each id of :meth:`decode`'s text stands for.

        The space at the very start is nobody's; an end of sentence stands for itself.
        """
        spelt = [[i] if i <= EOS else [self._ids[c] for c in self.written(i)] for i in ids]
        if spelt and spelt[0][0] == self._ids[" "]:
            spelt[0] = spelt[0][1:]
        return spelt

    def _merge(self, word: str) -> tuple[int, ...]:
        """Merge neighbours, the pair that was merged first in learning before others."""
        units = list(word)
        while True:
            ranked = [
                (self._rank[a + b], place)
                for place, (a, b) in enumerate(itertools.pairwise(units))
                if a + b in self._rank
            ]
            if not ranked:
                return tuple(self._unit_ids[unit] for unit in units)
            _, place = min(ranked)
            units[place : place + 2] = [units[place] + units[place + 1]]


def units(
    alphabet: str, pieces: Sequence[str] = (), normalizer: Normalizer = "english"
) -> Characters:
    """What a model writes: characters, or pieces if there are any."""
    if pieces:
        return Pieces(alphabet, pieces, normalizer)
    return Characters(alphabet, normalizer)


def from_file(value: Any) -> Any:
    """The lines of the file that `las bpe` wrote, where one is named instead of a list.

    Raises:
        ValueError: it cannot be read.
    """
    if not isinstance(value, str):
        return value
    try:
        return Path(value).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError("cannot read this file of pieces; `las bpe` writes one") from None


def learn(lines: Iterable[str], count: int) -> list[str]:
    """The pieces that sentencepiece's byte-pair encoding finds in normalised sentences.

    Args:
        lines: sentences.
        count: how many pieces.

    Raises:
        LASError: the text is too small for so many.
    """
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "bpe"
        text = [line for line in lines if line]
        letters = set("".join(text)) - {" "}
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(text),
                model_prefix=str(prefix),
                model_type="bpe",
                vocab_size=count + len(letters) + 2,  # with "unknown" and the space
                bos_id=-1,
                eos_id=-1,
                character_coverage=1.0,
                normalization_rule_name="identity",
                split_by_unicode_script=False,
                split_digits=False,
                max_sentence_length=1 << 20,
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            if limit := re.search(r"value <= (\d+)", reason):
                most = int(limit[1]) - len(letters) - 2
                reason = f"it gives {most}; ask for fewer, or give more text"
            raise LASError(f"cannot find {count} pieces in this text: {reason}") from None
        found = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
        pieces = [found.id_to_piece(i).replace(_SPACE, " ") for i in range(found.get_piece_size())]
    return [piece for i, piece in enumerate(pieces) if len(piece) > 1 and not found.is_unknown(i)][
        :count
    ]
