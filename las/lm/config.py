"""Settings of the character language model and of its training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from las import config as configuration
from las.config import Natural, Positive, Settings, Share
from las.errors import LASError
from las.text.characters import ALPHABET
from las.text.normalizer import Normalizer, check_alphabet


class LMModelConfig(Settings):
    """What defines a language model; stored beside its weights."""

    # Ids are kept as bytes, and blank and the end of sentence take two of the 256.
    alphabet: Annotated[str, Field(min_length=1, max_length=254)] = ALPHABET
    normalizer: Normalizer = "english"  # of the text; see las.config.TextConfig
    layers: Positive = 1
    width: Positive = 512
    embedding: Positive = 64
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1

    @model_validator(mode="after")
    def _check(self) -> "LMModelConfig":
        try:
            check_alphabet(self.alphabet, self.normalizer)
        except LASError as error:
            raise ValueError(str(error)) from None
        return self


class LMTrainingConfig(Settings):
    """The loop. It ends after ``steps`` or ``max_minutes``, whichever comes first."""

    steps: Positive = 20000
    max_minutes: Annotated[float, Field(gt=0)] | None = None  # of training, over all resumes
    seed: Natural = 1
    threads: Positive = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"  # of the matrix products
    batch_characters: Positive = 4096  # at most, ends of sentence included
    max_characters: Positive = 1000  # longer lines are left out
    dev_every: Annotated[int, Field(ge=0)] = 100  # a sentence in so many is held out; 0: none
    dev_sentences: Positive = 2000  # of those, how many are measured during training
    evaluate_every: Positive = 500  # steps
    log_every: Positive = 20  # steps
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3  # the peak
    warmup: Natural = 100  # steps from 0 to the peak
    final_rate: Share = 0.02  # share of the peak at the end of the cosine decay
    clip: Annotated[float, Field(gt=0)] = 1.0  # norm of the gradient
    max_skipped: Positive = 20  # non-finite steps in a row before giving up

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
    """A training run: the model and the loop."""

    training: LMTrainingConfig = LMTrainingConfig()

    def model_settings(self) -> LMModelConfig:
        """The part that goes with the weights."""
        return LMModelConfig(**{name: getattr(self, name) for name in LMModelConfig.model_fields})


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> LMConfig:
    """Settings of a YAML file, or the defaults, with ``key=value`` overrides applied in order.

    Raises:
        LASError: the file is missing or no YAML, or a key or value is not right.
    """
    if path is not None:
        return configuration.load(LMConfig, path, overrides)
    return configuration.parse(LMConfig, {}, "command line", overrides)
