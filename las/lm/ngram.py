"""A character n-gram language model: a trie of n-grams.

It is estimated in minutes on one core, where an LSTM is trained for hours. The probability of a
character w after a context c is interpolated from the shortest context to the longest known one
(Kneser & Ney 1995, Chen & Goodman 1999)::

    p(w | c) = share(c, w) + (1 - sum of share(c, .)) p(w | c without its first character)

Only the shares are stored; :mod:`las.lm.kneser_ney` estimates them from a text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from las import config_files as configuration
from las.config import Settings
from las.errors import LASError
from las.storage.atomic import make_folder
from las.storage.settings import save_settings
from las.storage.weights import WEIGHTS, read_weights, write_weights
from las.text.characters import ALPHABET, EOS, Characters
from las.text.normalizer import Normalizer, check_alphabet

CONFIG = "ngram.yaml"
BITS = 5  # of an id: the followers of a node are bits of one int32, an n-gram is a 64-bit number
MAX_ORDER = 64 // BITS
STEPS = 20.0  # quantisation steps per nat of a stored share: 0.05 nats, down to exp(-12.75)
_LEAST = 1e-5  # minimum share of shorter contexts, so that nothing is impossible


class NgramConfig(Settings):
    """Settings of an n-gram model; stored beside its shares."""

    alphabet: Annotated[str, Field(min_length=1, max_length=2**BITS - 3)] = ALPHABET
    normalizer: Normalizer = "english"  # of the text; see las.config.TextConfig
    order: Annotated[int, Field(ge=1, le=MAX_ORDER)] = MAX_ORDER

    @model_validator(mode="after")
    def _check(self) -> "NgramConfig":
        try:
            check_alphabet(self.alphabet, self.normalizer)
        except LASError as error:
            raise ValueError(str(error)) from None
        return self


class NgramState(NamedTuple):
    """The contexts of hypotheses."""

    nodes: Tensor  # [B, N, order], nodes of the last 0, 1, 2 ... characters


class NgramModel(nn.Module):
    """A language model for search; see :class:`las.decoding.hypothesis.LanguageModel`.

    A node is an n-gram; node 0 is the empty one. Nodes are numbered by length and then in order of
    their ids, so that the followers of a node are consecutive.

    Args:
        config: alphabet and order.
        followers: int32, of every node shorter than ``order``: bit w is set if the node followed
            by id w is a node.
        shares: uint8, of every node but the first; see :func:`quantise`.
    """

    followers: Tensor
    shares: Tensor
    first: Tensor  # first follower of each node
    decoded: Tensor  # share of each byte

    def __init__(self, config: NgramConfig, followers: Tensor, shares: Tensor) -> None:
        super().__init__()
        self.config = config
        self.text = Characters(config.alphabet, config.normalizer)
        none = torch.zeros(1, dtype=torch.int32)
        # One more node, without followers, for every unknown context.
        self.register_buffer("followers", torch.cat([followers, none]))
        self.register_buffer("shares", torch.cat([none.byte(), shares]))
        # In parts that fit the cache, which is ten times as fast.
        counts = torch.cat([population(part) for part in self.followers.split(1 << 16)])
        first = counts.cumsum(0, dtype=torch.int32).sub_(counts).add_(1)
        self.register_buffer("first", first)
        self.register_buffer("decoded", torch.exp(-torch.arange(256) / STEPS))

    def start(self, batch: int, beams: int) -> NgramState:
        """The state before a sentence, for B utterances with N hypotheses each."""
        shape = (batch, beams, self.config.order)
        nodes = torch.full(shape, len(self.followers) - 1, device=self.shares.device)
        nodes[..., 0] = 0
        return NgramState(nodes)

    @torch.no_grad()
    def step(self, state: NgramState, tokens: Tensor) -> tuple[Tensor, NgramState]:
        """Read one more token of each hypothesis.

        Args:
            state: of the hypotheses.
            tokens: [B, N], the last token of each; EOS at the start.

        Returns:
            log-probabilities [B, N, V] of the next token, float32, minus infinity for blank; and
            the state after the tokens.
        """
        none = len(self.followers) - 1
        index = tokens[..., None]
        masks = self.followers[state.nodes]
        known = (masks >> index) & 1
        before = population(masks & ((1 << index) - 1))
        longer = torch.where(known > 0, self.first[state.nodes] + before, none)
        nodes = torch.cat([torch.zeros_like(index), longer[..., :-1]], -1)

        ids = torch.arange(len(self.text), device=tokens.device)
        bits = (self.followers[nodes][..., None] >> ids) & 1  # [B, N, order, V]
        child = self.first[nodes][..., None] + bits.cumsum(-1) - bits
        shares = self.decoded[self.shares[child * bits].int()] * bits
        rest = (1 - shares.sum(-1, keepdim=True)).clamp_min(_LEAST)
        # The rest of a context goes to the next shorter one, and at last to the uniform one.
        passed = rest.flip(2).cumprod(2).flip(2)
        weights = torch.cat([passed[..., 1:, :], torch.ones_like(rest[..., :1, :])], 2)
        total = (shares * weights).sum(2) + passed[:, :, 0] / (len(self.text) - EOS)
        total[..., :EOS] = 0
        return (total / total.sum(-1, keepdim=True)).log(), NgramState(nodes)

    @staticmethod
    def select(state: NgramState, index: Tensor) -> NgramState:
        """States of hypotheses index [B, M] of each utterance's N; M may differ from N."""
        index = index[..., None].expand(-1, -1, state.nodes.shape[-1])
        return NgramState(state.nodes.gather(1, index))

    def losses(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Negative log-probabilities [B] in nats of padded sentences [B, U], ends included."""
        nats = torch.zeros(len(tokens), device=tokens.device)
        state = self.start(len(tokens), 1)
        read = torch.full_like(tokens[:, :1], EOS)
        for step in range(tokens.shape[1] + 1):
            log_probs, state = self.step(state, read)
            read = torch.full_like(read, EOS)
            if step < tokens.shape[1]:
                read = torch.where(step < lengths[:, None], tokens[:, step : step + 1], read)
            nats -= log_probs[:, 0].gather(1, read)[:, 0] * (step <= lengths)
        return nats

    def save_pretrained(self, folder: str | Path, info: Mapping[str, str] | None = None) -> None:
        """Write ``model.safetensors`` and ``ngram.yaml``, each atomically.

        Most nodes have no followers; one bit for each says whether it has.

        Args:
            folder: made if it is missing.
            info: metadata to store with the model: text, sentences, perplexity, licence.
        """
        folder = Path(folder)
        make_folder(folder)
        save_settings(self.config, folder / CONFIG)
        followers = self.followers[:-1].cpu()
        write_weights(
            {
                "followers": followers[followers != 0],
                "inner": pack(followers != 0),
                "shares": self.shares[1:].cpu(),
                "nodes": torch.tensor([len(followers)]),
            },
            folder / WEIGHTS,
            info,
        )

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "NgramModel":
        """Load a model folder; nothing is unpickled.

        Raises:
            LASError: a file is missing, corrupt, or not of an n-gram model of this project.
        """
        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise LASError(f"{folder}: not an n-gram model folder: it has no {name}")
        config = configuration.load(NgramConfig, folder / CONFIG)
        path = folder / WEIGHTS
        stored = read_weights(path)
        try:
            nodes = int(stored["nodes"])
            inner = unpack(stored["inner"], nodes)
            followers = torch.zeros(len(inner), dtype=torch.int32)
            followers.masked_scatter_(inner, stored["followers"])
            shares = stored["shares"]
            model = cls(config, followers, shares)
            fits = len(inner) == nodes and shares.dtype == torch.uint8
            fits = fits and len(stored["followers"]) == int(inner.sum())
            fits = fits and int(model.first[-1]) == len(model.shares)
        except (KeyError, IndexError, RuntimeError, ValueError):
            fits = False
        if not fits:
            raise LASError(f"{path}: not the n-grams of the model in {CONFIG} beside them")
        return model.to(device).eval()


def quantise(shares: Tensor) -> Tensor:
    """Shares in (0, 1] as bytes, on a logarithmic scale."""
    return (-shares.log() * STEPS).round().clamp(0, 255).byte()


def population(words: Tensor) -> Tensor:
    """Number of set bits of each non-negative int32."""
    words = words - ((words >> 1) & 0x55555555)
    words = (words & 0x33333333) + ((words >> 2) & 0x33333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F
    words = words + (words >> 8)
    return (words + (words >> 16)) & 0x3F


def pack(bits: Tensor) -> Tensor:
    """Booleans [n] as bytes [ceil(n / 8)]."""
    padded = nn.functional.pad(bits.byte(), (0, -len(bits) % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, count: int) -> Tensor:
    """Invert :func:`pack`: booleans [count]."""
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[:count].bool()
