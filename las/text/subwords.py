"""Byte-pair encoding: ids of subwords besides single characters (Sennrich et al. 2016).

A subword does not cross words; those at the start of a word begin with a space, also in the first
word of a sentence. sentencepiece learns them. They are stored in merge order, which is all that
encoding needs, so that a model folder has no tokenizer file.
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

_SPACE = "\u2581"  # of sentencepiece


class Subwords(Characters):
    """Ids of characters, the same as without subwords, and then of the subwords.

    Args:
        alphabet: of characters, with a space.
        subwords: of two characters or more, in merge order.
        normalizer: see :class:`las.text.characters.Characters`.

    Raises:
        LASError: a subword is not made of the alphabet, spans words, or occurs twice.
    """

    def __init__(
        self, alphabet: str, subwords: Sequence[str], normalizer: Normalizer = "english"
    ) -> None:
        super().__init__(alphabet, normalizer)
        if " " not in alphabet:
            raise LASError(f"alphabet {alphabet!r} needs a space, with which subwords start words")
        self.subwords = tuple(subwords)
        for subword in self.subwords:
            if len(subword) < 2 or " " in subword[1:] or not set(alphabet).issuperset(subword):
                raise LASError(
                    f"subword {subword!r}: not two or more characters of one word over {alphabet!r}"
                )
        if len(set(self.subwords)) != len(self.subwords):
            raise LASError("a subword occurs twice")
        self._units = [*alphabet, *self.subwords]
        self._rank = {subword: rank for rank, subword in enumerate(self.subwords)}
        self._unit_ids = {unit: i for i, unit in enumerate(self._units, start=EOS + 1)}
        self._word = lru_cache(maxsize=1 << 16)(self._merge)

    def __len__(self) -> int:
        return len(self._units) + EOS + 1

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised text, without an end of sentence.

        Raises:
            LASError: a character is not in the alphabet.
        """
        super().encode(text)  # refuses what is not in the alphabet
        ids: list[int] = []
        for word in text.split(" ") if text else []:
            ids += self._word(" " + word)
        return ids

    def symbol(self, id: int) -> str:
        """The text of one id; empty for blank and end of sentence."""
        return self._units[id - EOS - 1] if id > EOS else ""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids up to the first end of sentence; blanks are skipped."""
        text = ""
        for i in ids:
            if i == EOS:
                break
            if i != BLANK:
                text += self.symbol(i)
        return text.removeprefix(" ")

    def to_characters(self, ids: Sequence[int]) -> list[list[int]]:
        """For each id the ids of its characters, as in the text of :meth:`decode`.

        The space at the start of the text is left out; an end of sentence remains.
        """
        character_ids = [[i] if i <= EOS else [self._ids[c] for c in self.symbol(i)] for i in ids]
        if character_ids and character_ids[0][0] == self._ids[" "]:
            character_ids[0] = character_ids[0][1:]
        return character_ids

    def _merge(self, word: str) -> tuple[int, ...]:
        """Merge neighbours in the order in which the merges were learnt."""
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


def tokenizer(
    alphabet: str, subwords: Sequence[str] = (), normalizer: Normalizer = "english"
) -> Characters:
    """Ids of subwords if there are any, else of characters."""
    if subwords:
        return Subwords(alphabet, subwords, normalizer)
    return Characters(alphabet, normalizer)


def from_file(value: Any) -> Any:
    """Read the file that `las bpe` wrote, where a path is given instead of a list of subwords.

    Raises:
        ValueError: it cannot be read.
    """
    if not isinstance(value, str):
        return value
    try:
        return Path(value).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ValueError("cannot read this file of subwords; `las bpe` writes one") from None


def learn(lines: Iterable[str], count: int) -> list[str]:
    """Learn subwords with sentencepiece's byte-pair encoding.

    Args:
        lines: normalised sentences.
        count: number of subwords.

    Returns:
        the subwords in merge order.

    Raises:
        LASError: the text is too small for so many.
    """
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "bpe"
        text = [line for line in lines if line]
        characters = set("".join(text)) - {" "}
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(text),
                model_prefix=str(prefix),
                model_type="bpe",
                vocab_size=count + len(characters) + 2,  # with "unknown" and the space
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
                most = int(limit[1]) - len(characters) - 2
                reason = f"it gives {most}; ask for fewer or give more text"
            raise LASError(f"cannot learn {count} subwords from this text: {reason}") from None
        learnt = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
        subwords = [
            learnt.id_to_piece(i).replace(_SPACE, " ")
            for i in range(learnt.get_piece_size())
            if not learnt.is_unknown(i)
        ]
    return [subword for subword in subwords if len(subword) > 1][:count]
