"""Settings of the character language model and of its training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from las import config_files as configuration
from las.config import Natural, Positive, Settings, Share
from las.errors import LASError
from las.text.characters import ALPHABET
from las.text.normalizer import Normalizer, check_alphabet


class LMModelConfig(Settings):
    """A language model; stored as ``lm.yaml`` beside its weights."""

    # Characters of the text, at most 254, as ids are stored as bytes.
    alphabet: Annotated[str, Field(min_length=1, max_length=254)] = ALPHABET
    normalizer: Normalizer = "english"  # of the text; see las.config.TextConfig
    layers: Positive = 1  # number of LSTM layers
    width: Positive = 512  # units of each layer
    embedding: Positive = 64  # width of the embedding of a character
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1  # dropout probability

    @model_validator(mode="after")
    def _check(self) -> "LMModelConfig":
        try:
            check_alphabet(self.alphabet, self.normalizer)
        except LASError as error:
            raise ValueError(str(error)) from None
        return self


class LMTrainingConfig(Settings):
    """The training loop. It ends after ``steps`` or ``max_minutes``, whichever comes first."""

    steps: Positive = 20000  # number of optimizer steps
    # Minutes of training, over all resumes; null: no limit.
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    seed: Natural = 1  # of all random numbers
    threads: Positive = 1  # CPU threads
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU if there is one
    precision: Literal["float32", "bfloat16"] = "float32"  # of the matrix products
    batch_characters: Positive = 4096  # limit of the characters of a batch, ends included
    max_characters: Positive = 1000  # longer lines are left out
    # One sentence in so many, by a hash of its text, is in the dev set; 0: no dev set.
    dev_every: Annotated[int, Field(ge=0)] = 100
    dev_sentences: Positive = 2000  # limit of the dev sentences that are measured
    evaluate_every: Positive = 500  # steps between validations
    log_every: Positive = 20  # steps between rows of log.jsonl
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0  # minutes between checkpoints
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3  # peak of the learning rate
    warmup: Natural = 100  # steps of linear warm-up to the peak
    final_rate: Share = 0.02  # final learning rate as a share of the peak, after cosine decay
    clip: Annotated[float, Field(gt=0)] = 1.0  # limit of the norm of the gradient
    max_skipped: Positive = 20  # steps in a row with a non-finite gradient that end the training

    @model_validator(mode="after")
    def _check(self) -> "LMTrainingConfig":
        if self.dev_every == 1:
            raise ValueError("dev_every 1 would hold out every sentence; use 2 or more, or 0")
        if self.max_characters >= self.batch_characters:
            raise ValueError(
                f"max_characters {self.max_characters} must be below batch_characters "
                f"{self.batch_characters}, for a sentence to fit a batch"
            )
        return self


class LMConfig(LMModelConfig):
    """A training run: model and training loop."""

    training: LMTrainingConfig = LMTrainingConfig()

    def model_settings(self) -> LMModelConfig:
        """The settings of the model alone."""
        return LMModelConfig(**{name: getattr(self, name) for name in LMModelConfig.model_fields})


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> LMConfig:
    """Settings of a YAML file, or the defaults, with ``key=value`` overrides applied in order.

    Raises:
        LASError: the file is missing or not YAML, or a key or value is not valid.
    """
    if path is not None:
        return configuration.load(LMConfig, path, overrides)
    return configuration.parse(LMConfig, {}, "command line", overrides)
