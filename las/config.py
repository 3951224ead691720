"""Every setting, typed, with its default; an unknown key is an error that names the right one."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from las.config_errors import explain, overridden
from las.errors import LASError
from las.text.characters import ALPHABET
from las.text.normalizer import Normalizer, check_alphabet
from las.text.subwords import from_file, units

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


class Settings(BaseModel):
    """Base of all sections: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, data: Any) -> Any:
        """Where a text is wanted, no value (``dev:`` or ``data.dev=``) is an empty one."""
        if not isinstance(data, dict):
            return data
        texts = {name for name, field in cls.model_fields.items() if field.annotation is str}
        return {key: "" if value is None and key in texts else value for key, value in data.items()}


class SpecAugmentConfig(Settings):
    """Masks of SpecAugment, in bands and frames of 10 ms."""

    frequency_masks: Natural = 2
    frequency_width: Natural = 27
    time_masks: Natural = 2
    time_width: Natural = 100
    time_share: Share = 0.2  # a time mask covers at most this share of an utterance


class FrontendConfig(Settings):
    """Log-mel features; lengths in samples."""

    sample_rate: Positive = 16000
    n_fft: Positive = 512
    win_length: Positive = 400
    hop_length: Positive = 160
    n_mels: Positive = 80
    floor: Annotated[float, Field(gt=0)] = 1e-6  # of the energies, before the logarithm
    specaugment: SpecAugmentConfig | None = SpecAugmentConfig()

    @model_validator(mode="after")
    def _check(self) -> "FrontendConfig":
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} is longer than n_fft {self.n_fft}")
        return self


class ListenerConfig(Settings):
    """Bidirectional LSTM encoder."""

    layers: Positive = 3
    width: Positive = 256  # of each direction
    reduction: Literal[1, 2, 4, 8] = 4
    stack: Literal[1, 2, 4] = 1  # frames joined at the input; 1 is the pyramid of the paper
    # Channels of convolutions that join these frames, two by two; empty: they are stacked.
    convolutions: list[Positive] = []
    ctc_frames: Literal[1, 2, 4] = 1  # that CTC makes of a frame of the layer it reads
    dropout: Share = 0.2
    norm: bool = False  # layer normalisation of every layer's output

    @property
    def pairings(self) -> int:
        """Number of layers before which pairs of frames are joined."""
        return (self.reduction // self.stack).bit_length() - 1

    @property
    def ctc_pairings(self) -> int:
        """Pairings below the layer that CTC reads: the one at a reduction of 4 at most."""
        return (min(self.reduction, 4) // self.stack).bit_length() - 1

    @property
    def ctc_reduction(self) -> float:
        """Frames of the input to a frame of CTC."""
        return self.stack * 2**self.ctc_pairings / self.ctc_frames

    @property
    def ctc_layer(self) -> int:
        """Index of the layer that CTC reads."""
        return self.layers - 1 if self.ctc_pairings == self.pairings else self.ctc_pairings

    @model_validator(mode="after")
    def _check(self) -> "ListenerConfig":
        if self.stack > self.reduction:
            raise ValueError(f"stack {self.stack} is larger than reduction {self.reduction}")
        if self.convolutions and 2 ** len(self.convolutions) != self.stack:
            raise ValueError(
                f"convolutions {self.convolutions} join {2 ** len(self.convolutions)} frames, "
                f"stack says {self.stack}; each joins two"
            )
        if self.layers <= self.pairings:
            raise ValueError(
                f"reduction {self.reduction} with stack {self.stack} needs at least "
                f"{self.pairings + 1} layers, not {self.layers}"
            )
        return self


class AttentionConfig(Settings):
    """Score function. ``none`` is the plain encoder-decoder: one fixed vector, no attention."""

    kind: Literal["location", "additive", "dot", "none"] = "location"
    width: Positive = 256  # over all heads
    heads: Positive = 1
    channels: Positive = 10  # of the location filters
    taps: Positive = 31  # of the location filters, odd, in frames of the memory

    @model_validator(mode="after")
    def _check(self) -> "AttentionConfig":
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} do not divide width {self.width}")
        if self.taps % 2 == 0:
            raise ValueError(f"taps must be odd, not {self.taps}")
        return self


class SpellerConfig(Settings):
    """LSTM decoder over characters."""

    layers: Positive = 1
    width: Positive = 256
    embedding: Positive = 64
    dropout: Share = 0.2


class TextConfig(Settings):
    """What is written, beside its alphabet."""

    # english: upper case without accents and punctuation; upper: with accents; none: as it is.
    normalizer: Normalizer = "english"
    language: Annotated[str, Field(pattern="^[a-z]{2,3}(-[A-Za-z0-9]+)*$")] = "en"  # ISO 639


class ModelConfig(Settings):
    """What defines a model; stored as ``config.yaml`` beside its weights."""

    alphabet: Annotated[str, Field(min_length=1)] = ALPHABET
    text: TextConfig = TextConfig()
    # Of words, from `las bpe`, or its file; empty: characters.
    pieces: Annotated[list[str], BeforeValidator(from_file)] = []
    frontend: FrontendConfig = FrontendConfig()
    listener: ListenerConfig = ListenerConfig()
    attention: AttentionConfig = AttentionConfig()
    speller: SpellerConfig = SpellerConfig()
    longest_seconds: Annotated[float, Field(gt=0)] | None = None  # of the training; None: unknown

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        try:
            check_alphabet(self.alphabet, self.text.normalizer)
            units(self.alphabet, self.pieces, self.text.normalizer)
        except LASError as error:
            raise ValueError(str(error)) from None
        return self


class DataConfig(Settings):
    """Manifests, and how they become batches."""

    train: str = ""
    dev: str = ""
    batch_seconds: Annotated[float, Field(gt=0)] = 60.0  # of audio in a batch, about at most
    batch_utterances: Positive = 32  # at most
    buckets: Positive = 10  # of similar duration
    max_seconds: Annotated[float, Field(gt=0)] = 30.0  # longer utterances are left out
    speeds: Annotated[list[Annotated[float, Field(ge=0.5, le=2.0)]], Field(min_length=1)] = [1.0]
    joins: Share = 0.0  # share of the utterances under 6 s that are joined into longer ones
    silence: Share = 0.0  # share of the utterances replaced by noise, tones or silence: no text
    rooms: Share = 0.0  # share of the utterances that sound as in a simulated room
    noise: Share = 0.0  # share of the utterances with noise, 10 to 50 dB below the speech
    volume: Share = 0.0  # share of the utterances that are 30 dB softer to 6 dB louder
    mp3: Share = 0.0  # share of the utterances that pass through MP3 of low bit rates
    short_first: Natural = 1  # epochs in which batches come in order of duration
    workers: Natural = 1  # processes that read audio ahead


class TrainingConfig(Settings):
    """The loop."""

    output: str = "runs/las"
    init: str = ""  # model folder, or bundled, that the training starts from: weights and sizes
    epochs: Positive = 30
    seed: Natural = 1
    threads: Positive = 1  # a process; more gain nothing on small models
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3  # the peak
    warmup: Natural = 200  # steps from 0 to the peak
    hold: Share = 0.3  # share of the epochs at the peak, before the decay
    final_rate: Annotated[float, Field(gt=0, le=1)] = 0.01  # share of the peak at the end
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6
    clip: Annotated[float, Field(gt=0)] = 5.0  # norm of the gradient
    accumulate: Positive = 1  # batches to one optimizer step
    ctc: Share = 0.3  # weight of the CTC loss; the attention loss has the rest
    ctc_only: Natural = 0  # epochs that train the listener by CTC alone
    label_smoothing: Share = 0.1
    scheduled_sampling: Share = 0.0  # share of the inputs that are the model's own
    scheduled_sampling_start: Natural = 5  # first epoch of it
    average: Natural = 5  # best epochs whose weights are averaged at the end; 0: none
    evaluate_every: Positive = 1  # epochs
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    max_skipped: Positive = 20  # non-finite steps in a row before giving up


class SearchConfig(Settings):
    """Search. The defaults are greedy search; lengths are in characters, moves in memory frames.

    A hypothesis is ranked by ``((1 - ctc) attention + ctc CTC + lm_weight LM + word_weight words
    - word_penalty * spaces) / steps ** length_power + length_bonus * characters - coverage *
    uncovered frames``, in log-probabilities; its steps are its characters and its end.
    """

    beam: Positive = 1
    n_best: Positive = 1  # hypotheses to return, at most `beam`
    ctc: Annotated[float, Field(ge=0, lt=1)] = 0.0  # weight of CTC; attention has the rest
    lm_weight: Annotated[float, Field(ge=0)] = 0.3  # of a language model, if one is given
    word_weight: Annotated[float, Field(ge=0)] = 0.0  # of a word model, if one is given; 0: off
    unknown_word: Annotated[float, Field(ge=0)] = 0.0  # its cost beside that of `<unk>`, in nats
    word_penalty: Annotated[float, Field(ge=0)] = 0.0  # cost of a space, lest words fall apart
    length_power: Annotated[float, Field(ge=0)] = 0.0
    length_bonus: Annotated[float, Field(ge=0)] = 0.0
    coverage: Annotated[float, Field(ge=0)] = 0.0  # cost of a frame never attended to
    coverage_threshold: Annotated[float, Field(gt=0)] = 0.5  # summed attention that covers a frame
    end_threshold: Annotated[float, Field(ge=1)] | None = None  # an end must beat it x the best's
    max_back: Annotated[float, Field(ge=0)] | None = None  # of the centre of attention, in one step
    max_ahead: Annotated[float, Field(ge=0)] | None = None
    no_repeat_ngram: Natural = 0  # characters that may not be written twice; 0: no limit
    max_steps: Positive | None = None  # beside the limit that the audio's length sets

    @model_validator(mode="after")
    def _check(self) -> "SearchConfig":
        if self.n_best > self.beam:
            raise ValueError(f"n_best {self.n_best} is more than beam {self.beam}")
        return self

    @property
    def greedy(self) -> bool:
        """Whether it is greedy search, as long as there is no language model."""
        return self.model_copy(update={"lm_weight": 0.3}) == SearchConfig()


class RunConfig(ModelConfig):
    """A training run: the model, the data and the loop."""

    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    def model_settings(self) -> ModelConfig:
        """The part that goes with the weights."""
        return ModelConfig(**{name: getattr(self, name) for name in ModelConfig.model_fields})


S = TypeVar("S", bound=Settings)


def load(kind: type[S], path: str | Path, overrides: Sequence[str] = ()) -> S:
    """Read settings from a YAML file.

    Args:
        kind: which settings.
        path: the file.
        overrides: ``section.key=value`` with a YAML value, applied in order.

    Raises:
        LASError: the file is missing or no YAML, or a key or value is not right.
    """
    return parse(kind, read(path), str(path), overrides)


def read(path: str | Path) -> dict[str, Any]:
    """What a YAML file of settings says, unchecked.

    Raises:
        LASError: the file is missing, no YAML, or no settings.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(_shipped(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LASError(f"{path}: cannot read the configuration ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LASError(f"{path}: not YAML ({_one_line(error)})") from None
    if data is None:  # an empty file: all defaults
        data = {}
    if not isinstance(data, dict):
        raise LASError(f"{path}: not a configuration: expected `section: settings`")
    return data


def _shipped(path: Path) -> Path:
    """A configuration of a recipe as it ships with the package, if there is no such file."""
    inside = Path(str(resources.files("las"))) / path
    return inside if path.parts[:1] == ("recipes",) and not path.exists() else path


def parse(kind: type[S], data: dict[str, Any], origin: str, overrides: Sequence[str] = ()) -> S:
    """Check settings that were read from ``origin``; see :func:`load`."""
    for override in overrides:
        _override(data, override, kind)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        place = "command line" if overridden(error, overrides) else origin
        raise LASError(" ".join(f"{place}: {explain(kind, error)}".split())) from None


def to_yaml(settings: Settings) -> str:
    """Settings as YAML text, in their order of definition."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _override(data: dict[str, Any], override: str, kind: type[Settings]) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise LASError(f"{override!r}: settings on the command line are written key=value")
    *sections, last = key.strip().split(".")
    text = _is_text(kind, [*sections, last])
    for section in sections:
        if data.get(section) is None:
            data[section] = {}
        data = data[section]
        if not isinstance(data, dict):
            raise LASError(f"{override!r}: {section!r} is a value, not a section")
    if text and not (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        data[last] = value  # an alphabet may begin with a space, a folder may be a number
        return
    try:
        data[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise LASError(f"{override!r}: the value is not YAML ({_one_line(error)})") from None


def _is_text(kind: type[Settings], names: Sequence[str]) -> bool:
    """Whether a setting is a text; False of one that is not known."""
    found: Any = kind
    for name in names:
        fields = getattr(found, "model_fields", {})
        if name not in fields:
            return False
        found = fields[name].annotation
    return found is str


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
