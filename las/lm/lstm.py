"""A character LSTM language model.

Its ids are those of :class:`las.text.characters.Characters`. Blank is never predicted. EOS ends a
sentence and is also its first input; every sentence starts from the zero state.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from las import config_files as configuration
from las.errors import LASError
from las.lm.config import LMModelConfig
from las.lm.corpus import Sentences
from las.model.recurrent import LSTM
from las.storage.atomic import make_folder
from las.storage.settings import save_settings
from las.storage.weights import WEIGHTS, fit_weights, read_weights, write_weights
from las.text.characters import BLANK, EOS, Characters

if TYPE_CHECKING:
    from las.lm.ngram import NgramModel

# Not the name in a recogniser's folder, so that the two kinds of folder can be distinguished.
CONFIG = "lm.yaml"


class LMState(NamedTuple):
    """The LSTM state of hypotheses, [layers, B, N, width] each."""

    hidden: Tensor
    cell: Tensor


class LanguageModel(nn.Module):
    """Character LSTM (Mikolov et al. 2010, with the cell of Hochreiter & Schmidhuber 1997).

    In a search: ``state = start(B, N)``; ``log_probs, state = step(state, tokens)``, beginning
    with EOS; ``state = select(state, index)`` when hypotheses are reordered.

    Args:
        config: alphabet and sizes.
    """

    def __init__(self, config: LMModelConfig) -> None:
        super().__init__()
        self.config = config
        self.text = Characters(config.alphabet, config.normalizer)
        self.embedding = nn.Embedding(len(self.text), config.embedding)
        self.lstm = LSTM(
            config.embedding,
            config.width,
            config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        # No output for blank, the first id, so that the softmax needs no mask.
        self.output = nn.Linear(config.width, len(self.text) - 1)
        with torch.no_grad():
            for layer in range(config.layers):
                bias = getattr(self.lstm, f"bias_ih_l{layer}")
                bias[config.width : 2 * config.width] = 1.0  # open forget gates

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-probabilities [B, U + 1, V] after each prefix of tokens [B, U].

        Position u is predicted from the u tokens before it; blank has minus infinity.
        """
        inputs = nn.functional.pad(tokens, (1, 0), value=EOS)
        outputs, _ = self.lstm(self.dropout(self.embedding(inputs)))
        return self._predict(outputs)

    def losses(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Negative log-probabilities [B] in nats of padded sentences [B, U], ends included."""
        columns = torch.arange(tokens.shape[1] + 1, device=tokens.device)
        targets = nn.functional.pad(tokens, (0, 1), value=EOS)
        targets = targets.masked_fill(columns >= lengths[:, None], EOS)
        nats = -self(targets[:, :-1]).gather(2, targets[..., None])[..., 0]
        return nats.masked_fill(columns > lengths[:, None], 0.0).sum(1)

    def start(self, batch: int, beams: int) -> LMState:
        """The state before a sentence, for B utterances with N hypotheses each."""
        shape = (self.config.layers, batch, beams, self.config.width)
        zeros = self.output.weight.new_zeros(shape)
        return LMState(zeros, zeros)

    @torch.no_grad()
    def step(self, state: LMState, tokens: Tensor) -> tuple[Tensor, LMState]:
        """Read one more token of each hypothesis.

        Args:
            state: of the hypotheses.
            tokens: [B, N], the last token of each; EOS at the start.

        Returns:
            log-probabilities [B, N, V] of the next token, float32, minus infinity for blank; and
            the state after the tokens.
        """
        inputs = self.dropout(self.embedding(tokens.flatten()))[:, None]
        before = (state.hidden.flatten(1, 2), state.cell.flatten(1, 2))
        outputs, (hidden, cell) = self.lstm(inputs, before)
        log_probs = self._predict(outputs[:, 0]).unflatten(0, tokens.shape)
        shape = tuple(tokens.shape)
        return log_probs, LMState(hidden.unflatten(1, shape), cell.unflatten(1, shape))

    @staticmethod
    def select(state: LMState, index: Tensor) -> LMState:
        """States of hypotheses index [B, M] of each utterance's N; M may differ from N."""
        index = index[None, :, :, None].expand(
            state.hidden.shape[0], -1, -1, state.hidden.shape[-1]
        )
        return LMState(*(value.gather(2, index) for value in state))

    def _predict(self, outputs: Tensor) -> Tensor:
        log_probs = self.output(self.dropout(outputs)).float().log_softmax(-1)
        return nn.functional.pad(log_probs, (BLANK + 1, 0), value=-math.inf)

    def save_pretrained(self, folder: str | Path, info: Mapping[str, str] | None = None) -> None:
        """Write ``model.safetensors`` and ``lm.yaml``, each atomically.

        Args:
            folder: made if it is missing.
            info: metadata to store with the weights: text, steps, perplexity, licence.
        """
        folder = Path(folder)
        make_folder(folder)
        save_settings(self.config, folder / CONFIG)
        weights = {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        write_weights(weights, folder / WEIGHTS, info)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "LanguageModel":
        """Load a model folder, in evaluation mode; nothing is unpickled.

        Raises:
            LASError: a file is missing, corrupt, or not of a language model of this project.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise LASError(f"{folder}: no such language model folder")
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise LASError(f"{folder}: not a language model folder: it has no {name}")
        model = cls(configuration.load(LMModelConfig, folder / CONFIG))
        fit_weights(model, read_weights(folder / WEIGHTS), folder / WEIGHTS, CONFIG)
        return model.to(device).eval()


class Perplexity(NamedTuple):
    """Perplexity of a text. Ends of sentence are predicted, and counted, like characters."""

    nats: float
    sentences: int
    characters: int  # without ends of sentence
    words: int  # without ends of sentence

    @property
    def per_character(self) -> float:
        """Perplexity over characters and ends of sentence."""
        return math.exp(self.nats / (self.characters + self.sentences))

    @property
    def per_word(self) -> float:
        """Perplexity over words and ends of sentence, comparable with that of a word model."""
        try:
            return math.exp(self.nats / (self.words + self.sentences))
        except OverflowError:  # an untrained model on very long words
            return math.inf

    @property
    def bits(self) -> float:
        """Bits per character or end of sentence."""
        return self.nats / (self.characters + self.sentences) / math.log(2)

    def __str__(self) -> str:
        return (
            f"perplexity {self.per_character:.3f} per character, {self.per_word:.1f} per word, "
            f"{self.bits:.3f} bits per character"
        )


@torch.no_grad()
def measure(
    model: "LanguageModel | NgramModel", sentences: Sentences, batch_characters: int = 16384
) -> Perplexity:
    """Perplexity of sentences; restores the mode of the model."""
    training = model.training
    model.eval()
    device = next(iter(model.state_dict().values())).device
    nats = 0.0
    for index in sentences.by_length(batch_characters):
        tokens, lengths = sentences.select(index)
        losses = model.losses(tokens.to(device), lengths.to(device))
        nats += float(losses.double().sum())
    model.train(training)
    return Perplexity(nats, len(sentences), sentences.characters, sentences.words)
