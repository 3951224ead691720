"""A word n-gram language model: back-off tables, as in ARPA files, and scores for search.

A listed n-gram has a log-probability; any other one has that of the shorter context plus a back-off
weight (Katz 1987)::

    log p(w | c) = listed(c, w), else backoff(c) + log p(w | c without its first word)

:mod:`las.lm.word_kneser_ney` estimates the tables from a text, :mod:`las.lm.arpa` reads those of
other tools.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from las import config_files as configuration
from las.config import Settings
from las.errors import LASError
from las.lm.ngram import pack, unpack
from las.storage.atomic import make_folder
from las.storage.settings import save_settings
from las.storage.weights import WEIGHTS, read_weights, write_weights
from las.text.characters import ALPHABET, EOS, Characters
from las.text.normalizer import Normalizer, check_alphabet

CONFIG = "words.yaml"
START, END, UNKNOWN = range(3)  # special ids; words follow from FIRST on
FIRST = 3
MAX_ORDER = 6
MAX_WORDS = 1 << 21  # a key holds a node and a word
STEPS = 12.0  # quantisation steps per nat of a log-probability: 0.083 nats, down to -21.25
RAISED = 5.0  # maximum back-off weight in nats; it can be above 0 for pruned contexts
_BITS = 21
_FACTOR = -7046029254386353131  # odd factor of the word hash: 2^64 divided by the golden ratio
_NO_KEY = torch.iinfo(torch.int64).max


class WordConfig(Settings):
    """Settings of a word model; stored beside its tables."""

    alphabet: Annotated[str, Field(min_length=1, pattern=" ")] = ALPHABET
    normalizer: Normalizer = "english"  # of the text; see las.config.TextConfig
    order: Annotated[int, Field(ge=1, le=MAX_ORDER)] = 3

    @model_validator(mode="after")
    def _check(self) -> "WordConfig":
        try:
            check_alphabet(self.alphabet, self.normalizer)
        except LASError as error:
            raise ValueError(str(error)) from None
        return self


class Table(NamedTuple):
    """All n-grams of one length, in order of their contexts and then of their last words."""

    parents: NDArray[np.int64]  # row of the n-gram without its last word; 0 for single words
    words: NDArray[np.int64]  # last words; for single words all ids in order
    log_probs: NDArray[np.uint8]  # see `quantise`
    backoffs: NDArray[np.uint8]  # offset by `RAISED`; empty for the longest n-grams


class WordState(NamedTuple):
    """The words of hypotheses so far."""

    prefix: Tensor  # [B, N] hash of the current, incomplete word; 0 if it is empty
    nodes: (
        Tensor  # [B, N, order - 1] rows of the n-grams of the last 1, 2 ... words; -1 if not listed
    )
    after: Tensor  # the same if the current word ended here


class WordModel(nn.Module):
    """Scores each word of a hypothesis when it ends, with the interface of a language model.

    Args:
        config: alphabet and order.
        words: the words of ids from ``FIRST`` on.
        tables: of n-grams of length 1 to ``order``.

    Raises:
        ValueError: tables and words do not match.
    """

    hashes: Tensor  # sorted, of all words
    ids: Tensor  # of the words in the order of the hashes

    def __init__(self, config: WordConfig, words: Sequence[str], tables: Sequence[Table]) -> None:
        super().__init__()
        self.config = config
        self.text = Characters(config.alphabet, config.normalizer)
        self.words = list(words)
        self.space = self.text.encode(" ")[0]
        _check(config, self.words, tables)
        self.tables = list(tables)
        hashes = hash_words([self.text.encode(word) for word in self.words])
        order = np.argsort(hashes, kind="stable")
        if (np.diff(hashes[order]) == 0).any():
            raise ValueError("a word occurs twice")
        self.register_buffer("hashes", torch.from_numpy(np.append(hashes[order], _NO_KEY)))
        self.register_buffer("ids", torch.from_numpy(np.append(order + FIRST, UNKNOWN)))
        for n, table in enumerate(tables, start=1):
            if n > 1:
                keys = np.append((table.parents << _BITS) | table.words, _NO_KEY)
                self.register_buffer(f"keys{n}", torch.from_numpy(keys))
            log_probs = torch.from_numpy(table.log_probs).float() / -STEPS
            self.register_buffer(f"log_probs{n}", nn.functional.pad(log_probs, (0, 1)))
            if n < config.order:
                backoffs = RAISED - torch.from_numpy(table.backoffs).float() / STEPS
                # One more row, for contexts that are not listed.
                self.register_buffer(f"backoffs{n}", nn.functional.pad(backoffs, (0, 1)))

    def start(self, batch: int, beams: int) -> WordState:
        """The state before a sentence, for B utterances with N hypotheses each."""
        nodes = torch.full((batch, beams, self.config.order - 1), -1, device=self.ids.device)
        nodes[..., :1] = START
        return WordState(torch.zeros_like(self.ids[:1]).expand(batch, beams), nodes, nodes)

    @torch.no_grad()
    def step(
        self, state: WordState, tokens: Tensor, unknown: float = 0.0
    ) -> tuple[Tensor, WordState]:
        """Read one more token of each hypothesis.

        A word is scored with the token that ends it: a space or EOS, which also has its own
        probability. A space after a space ends no word.

        Args:
            state: of the hypotheses.
            tokens: [B, N], the last token of each; EOS at the start.
            unknown: cost in nats of a word outside the vocabulary, besides that of ``<unk>``.

        Returns:
            scores [B, N, V] of each next token, float32, zero except for space and EOS; and the
            state after the tokens.
        """
        ended = ((tokens == self.space) & (state.prefix != 0))[..., None]
        nodes = torch.where(ended, state.after, state.nodes)
        within = (tokens != self.space) & (tokens != EOS)
        prefix = torch.where(within, state.prefix * _FACTOR + tokens, 0)
        words = self.find(prefix)
        log_probs, after = self.read(nodes, words)
        log_probs = log_probs - unknown * (words == UNKNOWN)
        empty = prefix == 0
        log_probs = log_probs.masked_fill(empty, 0.0)
        after = torch.where(empty[..., None], nodes, after)
        ends, _ = self.read(after, torch.full_like(prefix, END))
        scores = log_probs.new_zeros(*tokens.shape, len(self.text))
        scores[..., self.space] = log_probs
        scores[..., EOS] = log_probs + ends
        return scores, WordState(prefix, nodes, after)

    @staticmethod
    def select(state: WordState, index: Tensor) -> WordState:
        """States of hypotheses index [B, M] of each utterance's N; M may differ from N."""
        wide = index[..., None].expand(-1, -1, state.nodes.shape[-1])
        return WordState(
            state.prefix.gather(1, index), state.nodes.gather(1, wide), state.after.gather(1, wide)
        )

    def find(self, prefix: Tensor) -> Tensor:
        """Ids of words by their hashes; ``UNKNOWN`` for those outside the vocabulary."""
        place = torch.searchsorted(self.hashes, prefix)
        return torch.where(self.hashes[place] == prefix, self.ids[place], UNKNOWN)

    def read(self, nodes: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [...] of words [...] after nodes [..., order - 1], and new nodes."""
        log_probs = self.get_buffer("log_probs1")[words]
        found = [words]
        for n in range(2, self.config.order + 1):
            node = nodes[..., n - 2]
            keys = self.get_buffer(f"keys{n}")
            key = (node << _BITS) | words  # negative where the context is not listed
            place = torch.searchsorted(keys, key)
            listed = keys[place] == key
            shorter = log_probs + self.get_buffer(f"backoffs{n - 1}")[node]
            log_probs = torch.where(listed, self.get_buffer(f"log_probs{n}")[place], shorter)
            found.append(torch.where(listed, place, -1))
        return log_probs, torch.stack(found, -1)[..., : self.config.order - 1]

    def save_pretrained(self, folder: str | Path, info: Mapping[str, str] | None = None) -> None:
        """Write ``model.safetensors`` and ``words.yaml``, each atomically.

        An n-gram takes a byte for its probability, one for its back-off weight, the bytes of an id
        for its last word, and two bits: whether longer n-grams follow, and whether it is the last
        one of its context.

        Args:
            folder: made if it is missing.
            info: metadata to store with the model: text, sentences, perplexity, licence.
        """
        folder = Path(folder)
        make_folder(folder)
        save_settings(self.config, folder / CONFIG)
        spellings = np.frombuffer("\n".join(self.words).encode(), np.uint8)
        stored = {"spelt": torch.from_numpy(spellings.copy())}
        for n, table in enumerate(self.tables, start=1):
            stored[f"log_probs{n}"] = torch.from_numpy(table.log_probs)
            if n < self.config.order:
                stored[f"backoffs{n}"] = torch.from_numpy(table.backoffs)
            if n > 1:
                inner = np.zeros(len(self.tables[n - 2].words), bool)
                inner[table.parents] = True
                last = np.diff(table.parents, append=-1) != 0
                stored[f"inner{n - 1}"] = pack(torch.from_numpy(inner))
                stored[f"last{n}"] = pack(torch.from_numpy(last))
                stored[f"words{n}"] = torch.from_numpy(
                    _planes(table.words, id_bytes(len(self.words) + FIRST))
                )
        write_weights(stored, folder / WEIGHTS, info)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "WordModel":
        """Load a model folder; nothing is unpickled.

        Raises:
            LASError: a file is missing, corrupt, or not of a word model of this project.
        """
        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise LASError(f"{folder}: not a word model folder: it has no {name}")
        config = configuration.load(WordConfig, folder / CONFIG)
        path = folder / WEIGHTS
        stored = read_weights(path)
        try:
            text = stored["spelt"].numpy().tobytes().decode()
            model = cls(config, text.split("\n") if text else [], _tables(config.order, stored))
        except (KeyError, IndexError, RuntimeError, TypeError, ValueError, LASError):
            raise LASError(f"{path}: not the words of the model in {CONFIG} beside them") from None
        return model.to(device).eval()


def quantise(log_probs: NDArray[np.float64], raised: float = 0.0) -> NDArray[np.uint8]:
    """Natural logarithms up to ``raised`` as bytes, in steps of 1 / :data:`STEPS`."""
    return np.rint((raised - log_probs) * STEPS).clip(0, 255).astype(np.uint8)


def hash_words(words: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Hashes of words of ids, as :meth:`WordModel.step` computes them."""
    lengths = np.array([len(word) for word in words], np.int64)
    ids = np.array([i for word in words for i in word], np.int64)
    return hash_spans(ids, np.cumsum(lengths) - lengths, lengths)


def hash_spans(
    ids: NDArray, starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Hashes of words that are spans of an array of ids."""
    hashes = np.zeros(len(starts), np.int64)
    longer = np.arange(len(starts))
    for place in range(int(lengths.max(initial=0))):
        longer = longer[lengths[longer] > place]
        hashes[longer] = hashes[longer] * np.int64(_FACTOR) + ids[starts[longer] + place]
    return hashes


def id_bytes(vocabulary: int) -> int:
    """Bytes of a stored id."""
    return max(1, -(-(vocabulary - 1).bit_length() // 8))


def _planes(values: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    """Numbers [n] as byte planes [count, n], the lowest byte first."""
    return np.stack([(values >> (8 * byte)).astype(np.uint8) for byte in range(count)])


def _tables(order: int, stored: Mapping[str, Tensor]) -> list[Table]:
    """The tables that :meth:`WordModel.save_pretrained` stored."""
    tables: list[Table] = []
    if any(tensor.dtype != torch.uint8 for tensor in stored.values()):
        raise ValueError("a tensor is not uint8")
    for n in range(1, order + 1):
        log_probs = stored[f"log_probs{n}"].numpy()
        backoffs = stored[f"backoffs{n}"].numpy() if n < order else log_probs[:0]
        count = len(log_probs)
        words = np.arange(count)
        parents = np.zeros(count, np.int64)
        if n > 1:
            planes = stored[f"words{n}"].numpy()
            words = sum((p.astype(np.int64) << (8 * i) for i, p in enumerate(planes)), words * 0)
            inner = unpack(stored[f"inner{n - 1}"], len(tables[-1].words)).numpy()
            last = unpack(stored[f"last{n}"], count).numpy()
            parents = np.flatnonzero(inner)[np.cumsum(last) - last]
            fits = len(inner) == len(tables[-1].words) and len(last) == count
            if not fits or int(last.sum()) != int(inner.sum()):
                raise ValueError("contexts without n-grams")
        tables.append(Table(parents, words, log_probs, backoffs))
    return tables


def _check(config: WordConfig, words: Sequence[str], tables: Sequence[Table]) -> None:
    vocabulary = len(words) + FIRST
    if not all(words) or any(" " in word for word in words):
        raise ValueError("a word is empty or has a space")
    if len(tables) != config.order or not 0 < vocabulary <= MAX_WORDS:
        raise ValueError(f"{len(tables)} tables of {vocabulary} words for order {config.order}")
    above = 1
    for n, (parents, last, log_probs, backoffs) in enumerate(tables, start=1):
        inner = n < config.order
        sizes = {len(parents), len(last), len(log_probs)} | ({len(backoffs)} if inner else set())
        kinds = {log_probs.dtype} | ({backoffs.dtype} if inner else set())
        keys = (parents << _BITS) | last
        fits = len(sizes) == 1 and kinds == {np.dtype(np.uint8)}
        fits = fits and (n > 1 or len(last) == vocabulary)
        sound = (
            fits
            and (np.diff(keys) > 0).all()
            and ((parents >= 0) & (parents < above)).all()
            and ((last >= 0) & (last < vocabulary)).all()
        )
        if not sound:
            raise ValueError(f"the n-grams of length {n} are damaged")
        above = len(last)
