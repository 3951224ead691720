"""Text files as encoded sentences: one sentence a line, one byte a character.

The text is read as a stream. A hash of its normalised text decides whether a sentence belongs to
the dev set, so that repetitions of a sentence are all in the same set.
"""

import gzip
import lzma
import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor

from las.errors import LASError
from las.text.characters import EOS, Characters

# Text that no normalizer changes, like most lines of prepared text; the test is 20 times as fast.
_NORMAL = re.compile(r"[A-Z][A-Z']*(?: [A-Z][A-Z']*)*")


@dataclass(frozen=True)
class Sentences:
    """Encoded sentences, without ends of sentence."""

    ids: np.ndarray  # uint8, all sentences concatenated
    offsets: np.ndarray  # int64 [sentences + 1]
    space: int  # id of the space; 0 if the alphabet has none

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def characters(self) -> int:
        """Number of characters, without ends of sentence."""
        return len(self.ids)

    @property
    def words(self) -> int:
        """Number of words."""
        spaces = int(np.count_nonzero(self.ids == self.space)) if self.space else 0
        return spaces + len(self)

    def select(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """These sentences as tokens [B, U], padded with EOS, and lengths [B]."""
        starts = self.offsets[index]
        lengths = self.offsets[index + 1] - starts
        columns = np.arange(int(lengths.max()))
        valid = columns < lengths[:, None]
        tokens = np.full(valid.shape, EOS, dtype=np.int64)
        tokens[valid] = self.ids[(starts[:, None] + columns)[valid]]
        return torch.from_numpy(tokens), torch.from_numpy(lengths)

    def batches(self, order: np.ndarray, characters: int) -> Iterator[np.ndarray]:
        """Split an order of sentences into batches of at most so many characters, ends included."""
        total = np.concatenate([[0], np.cumsum(self.offsets[order + 1] - self.offsets[order] + 1)])
        begin = 0
        while begin < len(order):
            end = int(np.searchsorted(total, total[begin] + characters, side="right")) - 1
            end = max(end, begin + 1)  # a sentence that is too long is a batch of its own
            yield order[begin:end]
            begin = end

    def shuffled(self, characters: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
        """Batches of an epoch: all sentences once, in random order.

        They are not grouped by length, as is usual: all sentences of such a batch end at the same
        position, which biases its gradient.
        """
        order = np.random.default_rng([seed, epoch]).permutation(len(self))
        return self.batches(order, characters)

    def parts(self, batch: np.ndarray, count: int) -> list[np.ndarray]:
        """Split a batch into parts of similar length, which are padded separately."""
        order = batch[np.argsort(self.offsets[batch + 1] - self.offsets[batch], kind="stable")]
        return [part for part in np.array_split(order, count) if len(part)]

    def by_length(self, characters: int) -> Iterator[np.ndarray]:
        """Batches in order of length, for evaluation."""
        return self.batches(np.argsort(np.diff(self.offsets), kind="stable"), characters)

    def sample(self, count: int, seed: int) -> "Sentences":
        """At most ``count`` random sentences, in their order."""
        if len(self) <= count:
            return self
        drawn = np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False))
        builder = _Builder(self.space)
        for i in drawn.tolist():
            builder.add(self.ids[self.offsets[i] : self.offsets[i + 1]].tobytes())
        return builder.build()


class _Builder:
    def __init__(self, space: int) -> None:
        self.space = space
        self.ids = bytearray()
        self.offsets = array("q", [0])

    def add(self, ids: bytes) -> None:
        self.ids += ids
        self.offsets.append(len(self.ids))

    def build(self) -> Sentences:
        """The sentences, without a copy."""
        ids = np.frombuffer(self.ids, dtype=np.uint8)
        return Sentences(ids, np.frombuffer(self.offsets, dtype=np.int64), self.space)


@dataclass(frozen=True)
class Text:
    """The training set and dev set of a text file, and the numbers of skipped lines."""

    train: Sentences
    dev: Sentences
    empty: int  # lines that are empty after normalisation
    outside: int  # lines with characters outside the alphabet
    long: int  # lines over the limit

    @property
    def skipped(self) -> str:
        """The numbers of skipped lines, as text."""
        return (
            f"{self.empty} empty, {self.outside} with characters outside the alphabet, "
            f"{self.long} too long"
        )


def read(path: Path, text: Characters, max_characters: int, dev_every: int = 0) -> Text:
    """Read a text of one sentence a line: UTF-8, plain, ``.gz`` or ``.xz``.

    Args:
        path: the file.
        text: the characters; lines with others (digits, say) are skipped and counted.
        max_characters: longer lines are skipped and counted.
        dev_every: one sentence in so many, with its repetitions, is in the dev set; 0: none.

    Raises:
        LASError: the file is missing, corrupt, not UTF-8, or has no usable line.
    """
    allowed = set(text.alphabet)
    table = {ord(c): chr(i) for c in text.alphabet for i in text.encode(c)}
    space = ord(table.get(ord(" "), "\0"))
    train, dev = _Builder(space), _Builder(space)
    empty = outside = long = 0
    try:
        with open_text(path) as file:
            for line in _lines(file, max_characters):
                if line is None:
                    long += 1
                    continue
                sentence = line if _NORMAL.fullmatch(line) else text.normalise(line)
                if not sentence:
                    empty += 1
                elif not allowed.issuperset(sentence):
                    outside += 1
                elif len(sentence) > max_characters:  # some characters become several ones
                    long += 1
                else:
                    ids = sentence.translate(table).encode("latin-1")
                    held_out = dev_every and zlib.crc32(ids) % dev_every == 0
                    (dev if held_out else train).add(ids)
    except UnicodeDecodeError:
        raise LASError(f"{path}: not a UTF-8 text; convert it to UTF-8") from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise LASError(f"{path}: corrupt or truncated ({' '.join(str(error).split())})") from None
    except OSError as error:
        raise LASError(f"{path}: cannot read the text ({error.strerror or error})") from None
    result = Text(train.build(), dev.build(), empty, outside, long)
    if not len(result.train) + len(result.dev):
        raise LASError(f"{path}: no usable line (lines skipped: {result.skipped})")
    return result


def checksum(sentences: Sentences) -> int:
    """A checksum of the sentences and their boundaries."""
    return zlib.crc32(sentences.offsets.data, zlib.crc32(sentences.ids.data))


def open_text(path: Path) -> TextIO:
    """Open a text file: plain, ``.gz`` or ``.xz``."""
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8-sig")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _lines(file: TextIO, limit: int) -> Iterator[str | None]:
    """Lines without line ends; None for one over the limit, which is never held in memory."""
    size = limit + 1  # the end of the line
    while line := file.readline(size):
        if line.endswith("\n") or len(line) < size:
            yield line.rstrip("\n")
            continue
        while (rest := file.readline(1 << 16)) and not rest.endswith("\n"):
            pass
        yield None
