"""Reads ARPA files of KenLM, SRILM and other tools, plain or compressed.

A file lists n-grams by length: ``log10 p``, the words, and ``log10`` of the back-off weight if
longer n-grams follow. Words with characters outside the alphabet are skipped.
"""

import gzip
import lzma
import math
import re
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from las.errors import LASError
from las.lm.corpus import open_text
from las.lm.word_ngram import (
    END,
    FIRST,
    MAX_ORDER,
    MAX_WORDS,
    RAISED,
    START,
    STEPS,
    UNKNOWN,
    Table,
    WordConfig,
    WordModel,
    quantise,
)
from las.text.characters import Characters, outside
from las.text.normalizer import Normalizer

_LN10 = math.log(10)
_SPECIAL = {"<s>": START, "</s>": END, "<unk>": UNKNOWN}
_NEVER = -255 / STEPS  # nats; the lowest that can be stored
_CUT = "the file is damaged or truncated"

Grams = NDArray[np.int64]


class _Lines:
    """Lines of a file that are not empty, with the number of the last one."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.number, self.file = path, 0, file

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            self.number += 1
            if stripped := line.strip():
                yield stripped

    def wrong(self, what: str) -> LASError:
        return LASError(f"{self.path}, line {self.number}: {what}")


def is_arpa(path: Path) -> bool:
    """Whether the name of a file is that of an ARPA file."""
    return re.search(r"\.arpa(\.gz|\.xz)?$", path.name, re.IGNORECASE) is not None


def read(path: Path, alphabet: str, normalizer: Normalizer = "english") -> tuple[WordModel, int]:
    """Read an ARPA file.

    Words are normalised like transcripts (:func:`las.text.normalizer.normalise`). Of several words
    that become the same, the first counts.

    Args:
        path: the file; ``.gz`` and ``.xz`` are unpacked.
        alphabet: of the recogniser.
        normalizer: of the recogniser.

    Returns:
        the model, and the number of skipped words.

    Raises:
        LASError: the file cannot be read or is damaged; the message names the line.
    """
    try:
        with open_text(path) as file:
            lines = _Lines(path, file)
            return _read(lines, iter(lines), Characters(alphabet, normalizer))
    except UnicodeDecodeError:
        raise LASError(f"{path}: not a UTF-8 text; convert it to UTF-8") from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise LASError(f"{path}: corrupt or truncated ({' '.join(str(error).split())})") from None
    except OSError as error:
        raise LASError(f"{path}: cannot read the model ({error.strerror or error})") from None


class _Vocabulary:
    """Ids of the words of a file; -1 for skipped words."""

    def __init__(self, text: Characters) -> None:
        self.text = text
        self.ids: dict[str, int] = {}
        self.spellings: dict[str, int] = {}  # normalised words and their ids

    def add(self, lines: _Lines, word: str) -> int:
        """Add a word of the 1-grams."""
        if word in self.ids:
            raise lines.wrong(f"{word!r} occurs twice")
        if (id := _SPECIAL.get(word.lower())) is None:
            folded = self.text.normalise(word)
            usable = bool(folded) and " " not in folded and not outside(folded, self.text.alphabet)
            id = len(self.spellings) + FIRST if usable and folded not in self.spellings else -1
            if id > 0:
                self.spellings[folded] = id
            if id >= MAX_WORDS:
                raise lines.wrong(f"more than {MAX_WORDS - FIRST:,} words")
        self.ids[word] = id
        return id

    def find(self, lines: _Lines, words: list[str]) -> list[int]:
        """Ids of the words of a longer n-gram."""
        try:
            return [self.ids[word] for word in words]
        except KeyError as error:
            raise lines.wrong(f"{error} is not among the 1-grams") from None


def _read(lines: _Lines, rest: Iterator[str], text: Characters) -> tuple[WordModel, int]:
    counts = _header(lines, rest)
    vocabulary = _Vocabulary(text)
    tables: list[Table] = []
    keys: list[Grams] = []
    for n, count in enumerate(counts, start=1):
        if n > 1 and next(rest, "") != f"\\{n}-grams:":
            raise lines.wrong(f"expected \\{n}-grams: after {counts[n - 2]:,} n-grams; {_CUT}")
        grams, numbers = _section(lines, rest, n, count, vocabulary)
        if n == 1:
            grams, numbers = _all_words(grams, numbers)
        key = _keys(lines.path, grams, keys)
        order = np.argsort(key, kind="stable")
        keys.append(key[order])
        if (np.diff(keys[-1]) == 0).any():
            raise LASError(f"{lines.path}: an n-gram of length {n} occurs twice; {_CUT}")
        log_probs, backoffs = numbers[order].T
        tables.append(
            Table(*divmod(keys[-1], MAX_WORDS), quantise(log_probs), quantise(backoffs, RAISED))
        )
    if next(rest, "") != "\\end\\":
        raise lines.wrong(f"expected \\end\\; {_CUT}")
    config = WordConfig(alphabet=text.alphabet, normalizer=text.normalizer, order=len(counts))
    skipped = sum(id < 0 for id in vocabulary.ids.values())
    return WordModel(config, list(vocabulary.spellings), tables), skipped


def _section(
    lines: _Lines, rest: Iterator[str], n: int, count: int, vocabulary: _Vocabulary
) -> tuple[Grams, NDArray[np.float64]]:
    """N-grams of one length [G, n], and their log-probabilities and back-off weights [G, 2]."""
    words, values = array("q"), array("d")
    for _ in range(count):
        fields = next(rest, "").split()
        if not n < len(fields) <= n + 2:
            raise lines.wrong(f"expected a number, {n} words and a back-off weight; {_CUT}")
        numbers = _numbers(lines, fields, n)
        if n == 1:
            found = [vocabulary.add(lines, fields[1])]
        else:
            found = vocabulary.find(lines, fields[1 : n + 1])
        if min(found) >= 0:
            words.extend(found)
            values.extend(numbers)
    return np.array(words, np.int64).reshape(-1, n), np.array(values).reshape(-1, 2)


def _keys(path: Path, grams: Grams, keys: list[Grams]) -> Grams:
    """Keys of n-grams: row of the context times the number of ids, plus the last word."""
    rows = np.zeros(len(grams), np.int64)
    for length, known in enumerate(keys):
        key = rows * MAX_WORDS + grams[:, length]
        rows = np.searchsorted(known, key)
        lost = int((np.append(known, -1)[rows] != key).sum())
        if lost:
            raise LASError(
                f"{path}: {lost:,} n-grams of length {grams.shape[1]} have a context that is not "
                "listed; write the model with all contexts, as KenLM and SRILM do"
            )
    return rows * MAX_WORDS + grams[:, -1]


def _header(lines: _Lines, rest: Iterator[str]) -> list[int]:
    """Number of n-grams of each length, from the header."""
    for line in rest:
        if line == "\\data\\":
            break
    else:
        raise LASError(f"{lines.path}: not an ARPA file: it has no line \\data\\")
    counts: list[int] = []
    for line in rest:
        if line == "\\1-grams:" and counts:
            break
        match = re.fullmatch(r"ngram\s+(\d{1,2})\s*=\s*(\d{1,12})", line)
        if match is None or int(match[1]) != len(counts) + 1:
            raise lines.wrong(f"expected the number of n-grams of length {len(counts) + 1}; {_CUT}")
        counts.append(int(match[2]))
    else:
        raise lines.wrong(f"no n-grams follow; {_CUT}")
    if len(counts) > MAX_ORDER:
        raise lines.wrong(f"n-grams of length {len(counts)}; the maximum is {MAX_ORDER}")
    return counts


def _numbers(lines: _Lines, fields: list[str], n: int) -> tuple[float, float]:
    """Log-probability and back-off weight of a line, in nats."""
    try:
        log_prob = _LN10 * float(fields[0])
        backoff = _LN10 * float(fields[n + 1]) if len(fields) > n + 1 else 0.0
    except ValueError:
        raise lines.wrong(f"expected a number, {n} words and a back-off weight; {_CUT}") from None
    if not log_prob <= 1e-5 or not backoff < math.inf:  # also true of NaN
        raise lines.wrong(f"{fields[0]} is not the logarithm of a probability; {_CUT}")
    return log_prob, backoff


def _all_words(grams: Grams, numbers: NDArray[np.float64]) -> tuple[Grams, NDArray[np.float64]]:
    """1-grams, with the special words that a file does not list."""
    missing = np.setdiff1d(np.arange(FIRST), grams[:, 0])
    listed = numbers[grams[:, 0] >= FIRST, 0]
    rare = listed.min() if len(listed) else _NEVER  # as the rarest word
    more = np.array([[rare if id == UNKNOWN else _NEVER, 0.0] for id in missing]).reshape(-1, 2)
    return np.concatenate([grams, missing[:, None]]), np.concatenate([numbers, more])
