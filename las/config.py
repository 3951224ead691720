"""All settings, with types and defaults; :mod:`las.config_files` reads them."""

import types
import typing
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from las.errors import LASError
from las.text.characters import ALPHABET
from las.text.normalizer import Normalizer, check_alphabet
from las.text.subwords import from_file, tokenizer

Share = Annotated[float, Field(ge=0.0, le=1.0)]  # 0 to 1
Positive = Annotated[int, Field(ge=1)]  # 1, 2, 3 ...
Natural = Annotated[int, Field(ge=0)]  # 0, 1, 2 ...


def may_be_text(annotation: Any) -> bool:
    """Whether a setting is a string, or a string or something else."""
    choice = isinstance(annotation, types.UnionType)
    return annotation is str or (choice and str in typing.get_args(annotation))


class Settings(BaseModel):
    """Base of all sections: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, data: Any) -> Any:
        """For a string, no value (``dev:`` or ``data.dev=``) is the empty string."""
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields.items()
        texts = {name for name, field in fields if may_be_text(field.annotation)}
        return {key: "" if value is None and key in texts else value for key, value in data.items()}


class SpecAugmentConfig(Settings):
    """Masks of SpecAugment on the features, in training."""

    frequency_masks: Natural = 2  # number of masks over mel bands
    frequency_width: Natural = 27  # upper limit of the bands that a mask covers
    time_masks: Natural = 2  # number of masks over frames
    time_width: Natural = 100  # upper limit of the frames (of hop_length) that a mask covers
    time_share: Share = 0.2  # upper limit of the share of an utterance that a time mask covers


class FrontendConfig(Settings):
    """Log-mel features."""

    sample_rate: Positive = 16000  # Hz; other audio is resampled
    n_fft: Positive = 512  # samples of the Fourier transform
    win_length: Positive = 400  # samples of the window
    hop_length: Positive = 160  # samples between frames
    n_mels: Positive = 80  # number of mel bands
    floor: Annotated[float, Field(gt=0)] = 1e-6  # lower limit of the energies, before the logarithm
    specaugment: SpecAugmentConfig | None = SpecAugmentConfig()  # null turns SpecAugment off

    @model_validator(mode="after")
    def _check(self) -> "FrontendConfig":
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} is longer than n_fft {self.n_fft}")
        return self


class ListenerConfig(Settings):
    """Bidirectional LSTM encoder."""

    layers: Positive = 3  # number of LSTM layers
    width: Positive = 256  # units of each direction
    reduction: Literal[1, 2, 4, 8] = 4  # input frames per output frame
    stack: Literal[1, 2, 4] = 1  # input frames joined before the first layer; 1: as in the paper
    # Channels of strided convolutions, each of which halves the frames; they join the frames of
    # `stack`. Empty: these frames are concatenated.
    convolutions: list[Positive] = []
    ctc_frames: Literal[1, 2, 4] = 1  # frames of CTC per frame of its input layer
    dropout: Share = 0.2  # dropout probability after each layer
    norm: bool = False  # layer normalisation after each layer

    @property
    def pairings(self) -> int:
        """Number of layers before which pairs of frames are concatenated."""
        return (self.reduction // self.stack).bit_length() - 1

    @property
    def ctc_pairings(self) -> int:
        """Pairings below the input layer of CTC, the last one with a reduction of at most 4."""
        return (min(self.reduction, 4) // self.stack).bit_length() - 1

    @property
    def ctc_reduction(self) -> float:
        """Input frames per frame of CTC."""
        return self.stack * 2**self.ctc_pairings / self.ctc_frames

    @property
    def ctc_layer(self) -> int:
        """Index of the input layer of CTC."""
        return self.layers - 1 if self.ctc_pairings == self.pairings else self.ctc_pairings

    @model_validator(mode="after")
    def _check(self) -> "ListenerConfig":
        if self.stack > self.reduction:
            raise ValueError(f"stack {self.stack} is larger than reduction {self.reduction}")
        if self.convolutions and 2 ** len(self.convolutions) != self.stack:
            raise ValueError(
                f"convolutions {self.convolutions} join {2 ** len(self.convolutions)} frames (two "
                f"each), but stack is {self.stack}"
            )
        if self.layers <= self.pairings:
            raise ValueError(
                f"reduction {self.reduction} with stack {self.stack} needs at least "
                f"{self.pairings + 1} layers, not {self.layers}"
            )
        return self


class AttentionConfig(Settings):
    """Attention of the speller to the frames of the listener."""

    # Score function; none: an encoder-decoder without attention, with one vector per utterance.
    kind: Literal["location", "additive", "dot", "none"] = "location"
    width: Positive = 256  # units, over all heads
    heads: Positive = 1  # number of heads; a divisor of width
    channels: Positive = 10  # number of location filters
    taps: Positive = 31  # length of the location filters in output frames of the listener; odd

    @model_validator(mode="after")
    def _check(self) -> "AttentionConfig":
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} do not divide width {self.width}")
        if self.taps % 2 == 0:
            raise ValueError(f"taps must be odd, not {self.taps}")
        return self


class SpellerConfig(Settings):
    """LSTM decoder over characters or subwords."""

    layers: Positive = 1  # number of LSTM layers
    width: Positive = 256  # units of each layer
    embedding: Positive = 64  # width of the embedding of a character or subword
    dropout: Share = 0.2  # dropout probability


class TextConfig(Settings):
    """Transcripts."""

    # english: upper case, no accents, no punctuation; upper: with accents; none: unchanged.
    normalizer: Normalizer = "english"
    # Language code (ISO 639), stored with the model; it changes nothing.
    language: Annotated[str, Field(pattern="^[a-z]{2,3}(-[A-Za-z0-9]+)*$")] = "en"


class ModelConfig(Settings):
    """A model; stored as ``config.yaml`` beside its weights."""

    alphabet: Annotated[str, Field(min_length=1)] = ALPHABET  # characters of the transcripts
    text: TextConfig = TextConfig()
    # Subwords in merge order, or the file that `las bpe` writes; empty: the model has characters.
    pieces: Annotated[list[str], BeforeValidator(from_file)] = []
    frontend: FrontendConfig = FrontendConfig()
    listener: ListenerConfig = ListenerConfig()
    attention: AttentionConfig = AttentionConfig()
    speller: SpellerConfig = SpellerConfig()
    # Seconds of the longest training utterance, which training sets; longer audio is split.
    longest_seconds: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        try:
            check_alphabet(self.alphabet, self.text.normalizer)
            tokenizer(self.alphabet, self.pieces, self.text.normalizer)
        except LASError as error:
            raise ValueError(str(error)) from None
        return self


def _sources(value: Any) -> Any:
    """One message in place of pydantic's for each type."""
    several = isinstance(value, list) and value and all(isinstance(one, str) for one in value)
    if not (several or isinstance(value, str)):
        raise ValueError("must be a manifest or a shard folder, or a list of shard folders")
    return value


class DataConfig(Settings):
    """Manifests, batches and augmentation."""

    # Training set, by `las prepare`: a manifest; or a shard folder or its address, or several.
    train: Annotated[str | list[str], BeforeValidator(_sources)] = ""
    # How many times an epoch reads each shard folder of `train`, also parts; empty: once.
    weights: list[Annotated[float, Field(gt=0)]] = []
    dev: str = ""  # manifest of the dev set; empty: none
    batch_seconds: Annotated[float, Field(gt=0)] = 60.0  # approximate limit of the audio of a batch
    batch_utterances: Positive = 32  # limit of the utterances of a batch
    buckets: Positive = 10  # number of buckets of similar duration
    max_seconds: Annotated[float, Field(gt=0)] = 30.0  # longer utterances are left out
    # Speed factors, of which each utterance gets a random one in each epoch.
    speeds: Annotated[list[Annotated[float, Field(ge=0.5, le=2.0)]], Field(min_length=1)] = [1.0]
    joins: Share = 0.0  # share of the utterances under 6 s that are joined into longer ones
    silence: Share = 0.0  # share of the utterances replaced by sounds without speech or text
    rooms: Share = 0.0  # share of the utterances with the reverberation of a simulated room
    noise: Share = 0.0  # share of the utterances with noise, 10 to 50 dB below the speech
    volume: Share = 0.0  # share of the utterances whose level is changed by -30 to 6 dB
    mp3: Share = 0.0  # share of the utterances encoded as MP3 of 16 to 48 kbit/s
    short_first: Natural = 1  # first epochs, in which batches are in order of duration
    shuffle: Positive = 20000  # utterances of shards that are shuffled and batched together
    cache: str = ""  # folder for copies of remote shards; empty: one in the temporary folder
    # Limit of these copies, of which those that were not read for the longest time are deleted.
    cache_gigabytes: Annotated[float, Field(gt=0)] = 50.0
    workers: Natural = 1  # processes that read audio; 0: the main process reads

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        count = 1 if isinstance(self.train, str) else len(self.train)
        if self.weights and len(self.weights) != count:
            raise ValueError(f"{len(self.weights)} weights for {count} shard folders of train")
        return self


class TrainingConfig(Settings):
    """The training loop."""

    output: str = "runs/las"  # folder of the run
    # Initial model for fine-tuning: a model folder, or bundled; empty: random weights.
    init: str = ""
    epochs: Positive = 30  # number of epochs
    seed: Natural = 1  # of all random numbers
    threads: Positive = 1  # CPU threads of each process; more do not help small models
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU if there is one
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3  # peak of the learning rate
    warmup: Natural = 200  # steps of linear warm-up to the peak
    hold: Share = 0.3  # share of the epochs before the cosine decay
    final_rate: Annotated[float, Field(gt=0, le=1)] = 0.01  # last learning rate / peak
    weight_decay: Annotated[float, Field(ge=0)] = 1e-6  # of AdamW
    clip: Annotated[float, Field(gt=0)] = 5.0  # limit of the norm of the gradient
    accumulate: Positive = 1  # batches of one optimizer step
    ctc: Share = 0.3  # weight of the CTC loss; the attention loss has the rest
    ctc_only: Natural = 0  # first epochs, which train the listener by CTC alone
    label_smoothing: Share = 0.1  # share of the target probability spread over all labels
    scheduled_sampling: Share = 0.0  # share of the speller's inputs that are its own predictions
    scheduled_sampling_start: Natural = 5  # first epoch with scheduled sampling
    # Decay, a step, of a moving average of the weights; it is validated and kept; 0: none. 0.999
    # averages about a thousand steps.
    moving_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    average: Natural = 5  # number of best epochs whose weights are averaged; 0 or 1: the best epoch
    evaluate_every: Positive = 1  # epochs between validations
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0  # minutes between checkpoints
    # Minutes that processes wait for one that does not answer.
    peer_minutes: Annotated[float, Field(gt=0)] = 10.0
    max_skipped: Positive = 20  # steps in a row with a non-finite gradient that end the training


class SearchConfig(Settings):
    """Settings of a search. The defaults are greedy search.

    A hypothesis is ranked by ``((1 - ctc) * attention + ctc * CTC + lm_weight * character LM +
    word_weight * word LM - word penalty) / steps ** length_power + length_bonus * characters -
    coverage * uncovered frames``, in log-probabilities (nats). The word penalty is
    ``word_penalty`` times the spaces; steps are the characters and the end; frames are output
    frames of the listener.
    """

    beam: Positive = 1  # number of hypotheses of the beam; 1: greedy search
    n_best: Positive = 1  # number of hypotheses to return, at most `beam`
    ctc: Annotated[float, Field(ge=0, lt=1)] = 0.0  # weight of CTC; attention has the rest
    lm_weight: Annotated[float, Field(ge=0)] = 0.3  # weight of a language model, if one is given
    word_weight: Annotated[float, Field(ge=0)] = 0.0  # weight of a word model, if one is given
    unknown_word: Annotated[float, Field(ge=0)] = 0.0  # nats; cost of a word outside the word model
    word_penalty: Annotated[float, Field(ge=0)] = 0.0  # nats; cost of each space
    length_power: Annotated[float, Field(ge=0)] = 0.0  # exponent of length normalisation; 0: none
    length_bonus: Annotated[float, Field(ge=0)] = 0.0  # nats; bonus of each character
    coverage: Annotated[float, Field(ge=0)] = 0.0  # nats; cost of each frame without attention
    coverage_threshold: Annotated[float, Field(gt=0)] = 0.5  # summed attention that covers a frame
    # Upper limit of the ratio of the log-probability of the end of sentence to that of the best
    # character, for a hypothesis to end; null: no limit.
    end_threshold: Annotated[float, Field(ge=1)] | None = None
    # Limit, in frames, of how far the centre of attention moves back in one step; null: none.
    max_back: Annotated[float, Field(ge=0)] | None = None
    # The same for moves ahead.
    max_ahead: Annotated[float, Field(ge=0)] | None = None
    no_repeat_ngram: Natural = 0  # characters of an n-gram that may not be repeated; 0: no limit
    max_steps: Positive | None = None  # limit of the steps, besides that by the length of the audio

    @model_validator(mode="after")
    def _check(self) -> "SearchConfig":
        if self.n_best > self.beam:
            raise ValueError(f"n_best {self.n_best} is more than beam {self.beam}")
        return self

    @property
    def greedy(self) -> bool:
        """Whether this is greedy search, if there is no language model."""
        return self.model_copy(update={"lm_weight": 0.3}) == SearchConfig()


class RunConfig(ModelConfig):
    """A training run: model, data and training loop."""

    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    def model_settings(self) -> ModelConfig:
        """The settings of the model alone."""
        return ModelConfig(**{name: getattr(self, name) for name in ModelConfig.model_fields})
