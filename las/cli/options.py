"""Options that several commands share, and the search settings that they give."""

from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from las.errors import LASError

if TYPE_CHECKING:
    import torch

    from las.config import SearchConfig
    from las.decoding.hypothesis import LanguageModel
    from las.model.las import LAS


def choices(names: Collection[str]) -> str:
    """How the help shows what an argument may be."""
    return f"[{'|'.join(names)}]"


def one_of(names: Collection[str]) -> Callable[[str | None], str | None]:
    """A callback of an option or argument that is one of some names, from a table of them."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            listed = ", ".join(map(repr, names))
            raise typer.BadParameter(f"{value!r} is not one of {listed}.")
        return value

    return check


class Normalizers(StrEnum):
    """Normalization of texts, see :mod:`las.text.normalizer`."""

    ENGLISH = "english"
    UPPER = "upper"
    NONE = "none"


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Number format of the listener's computation."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


DeviceOption = Annotated[
    Device, typer.Option(help="Where to compute; auto uses a GPU if there is one.")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        help="Of the listener. auto is float32; with bfloat16 results may depend on the batch."
    ),
]
ThreadsOption = Annotated[
    int, typer.Option(min=0, help="CPU threads; 0 uses OMP_NUM_THREADS if set, else one.")
]

# None: not given. Then the stored search of the model applies (`las tune`), else the default.
BeamOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Beam size; 1 is greedy. Default: the model's stored search (`las info`), else 1.",
    ),
]
CTCOption = Annotated[
    float | None,
    typer.Option(
        help="Weight of CTC scores, from 0 to below 1. Default: the stored search, else 0."
    ),
]
LMOption = Annotated[
    Path | None,
    typer.Option(help="Language model folder. Default: the model's own, if any."),
]
LMWeightOption = Annotated[
    float | None,
    typer.Option(help="Weight of the language model. Default: the stored search, else 0.3."),
]
WordsOption = Annotated[
    Path | None,
    typer.Option(
        help="Word model folder (`las lm words`), with or without --lm. Default: the model's own, "
        "if any."
    ),
]
SearchOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Another search setting, e.g. coverage=0.05; repeatable.",
    ),
]
NormalizerOption = Annotated[
    Normalizers,
    typer.Option(
        help="Normalization of the text: english is upper case without accents and punctuation, "
        "upper keeps accents, none keeps case and punctuation."
    ),
]
GreedyOption = Annotated[
    bool,
    typer.Option(
        "--no-stored-search",
        "--greedy",
        help="Ignore the model's stored search (`las tune`): greedy search, changed only by the "
        "other options.",
    ),
]


def search_settings(
    las: "LAS",
    place: "torch.device",
    folder: Path,
    lm: Path | None,
    settings: list[str] | None,
    *,
    words: Path | None = None,
    greedy: bool = False,
    **options: float | None,
) -> "tuple[SearchConfig, LanguageModel | None]":
    """The settings of a search, and its language models if there are any.

    They begin with the stored search of the model folder (:mod:`las.decoding.presets`); options
    replace single settings of it, and ``settings`` replace options.

    Args:
        las: the recogniser.
        place: its device, and that of the language models.
        folder: its model folder.
        lm: folder of the language model; None is the model folder's, if its settings use one.
        settings: ``key=value`` each.
        words: folder of the word model, likewise.
        greedy: begin with greedy search rather than the stored one.
        options: settings by name; None: not given.

    Raises:
        LASError: a setting is not valid, or the language model does not fit.
    """
    from las import config as configuration
    from las.config import SearchConfig
    from las.decoding import presets

    stored = None if greedy else presets.stored_settings(folder)
    # Only what the file states: a default weight does not ask for a language model.
    data = {} if stored is None else stored.model_dump(include=stored.model_fields_set)
    if lm is not None and data.get("lm_weight") == 0:
        del data["lm_weight"]  # of a folder without a language model; now there is one
    if words is not None and not data.get("word_weight"):
        data["word_weight"] = presets.WORD_WEIGHT
    data |= {name: value for name, value in options.items() if value is not None}
    config = configuration.parse(SearchConfig, data, "settings of the search", settings or [])
    if lm is None:
        weight = options.get("lm_weight")
        if weight is not None and (stored is None or not (folder / presets.LM).is_dir()):
            raise LASError("--lm-weight: there is no language model; give one with --lm FOLDER")
        lm = None if stored is None else presets.stored_lm(folder, config)
    if words is None and config.word_weight > 0:
        if stored is None or not (folder / presets.WORDS).is_dir():
            raise LASError("word_weight: there is no word model; give one with --words FOLDER")
        words = presets.stored_words(folder, config)
    return config, presets.load_both(lm, words, las.text, place)
