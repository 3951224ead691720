"""Options of the commands that search, and what they ask for."""

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


class Normalizers(StrEnum):
    """Brings texts into the form in which a model writes, see :mod:`las.text.normalizer`."""

    ENGLISH = "english"
    UPPER = "upper"
    NONE = "none"


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """What the listener computes in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


DeviceOption = Annotated[Device, typer.Option(help="auto takes a GPU if there is one.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option(help="Of the listener; auto is float32: others let a batch move results."),
]
ThreadsOption = Annotated[
    int, typer.Option(min=0, help="CPU threads; 0 is OMP_NUM_THREADS if set, else one.")
]

# None is not given: the model's own setting counts (`las tune`), else the default.
BeamOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Hypotheses kept; 1 is greedy. Default: what the model keeps (`las info`), else 1.",
    ),
]
CTCOption = Annotated[
    float | None,
    typer.Option(
        help="Weight of CTC in the search, 0 to below 1; default: what the model keeps, else 0."
    ),
]
LMOption = Annotated[
    Path | None,
    typer.Option(help="Folder of a language model; default: what the model keeps, if any."),
]
LMWeightOption = Annotated[
    float | None, typer.Option(help="Its weight; default: what the model keeps, else 0.3.")
]
WordsOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a word model (`las lm words`), beside --lm; default: what the model keeps, "
        "if any."
    ),
]
SearchOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Another setting of the search, e.g. coverage=0.05; repeatable.",
    ),
]
NormalizerOption = Annotated[
    Normalizers,
    typer.Option(
        help="Of the text: english is upper case without accents and punctuation, upper keeps "
        "accents, none keeps all."
    ),
]
GreedyOption = Annotated[
    bool,
    typer.Option(
        "--no-stored-search",
        "--greedy",
        help="Leave out the search that the model keeps (`las tune`): it is greedy, but for what "
        "other options ask.",
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
    """The settings of a search, and its language model if it has one, of words or characters.

    What the model folder keeps comes first (:mod:`las.decoding.presets`); options replace single
    settings of it, and ``settings`` replace options.

    Args:
        las: the recogniser.
        place: where it is, and where the language model goes.
        folder: its model folder.
        lm: folder of the language model; None is the model folder's, if its settings weigh one.
        settings: ``key=value`` each.
        words: folder of the word model, likewise.
        greedy: begin with greedy search, whatever the model folder keeps.
        options: settings by name; None is not given.

    Raises:
        LASError: a setting is not right, or the language model does not fit.
    """
    from las import config as configuration
    from las.config import SearchConfig
    from las.decoding import presets

    kept = None if greedy else presets.stored_settings(folder)
    # Only what is written there: a weight that nobody wrote asks for no language model.
    data = {} if kept is None else kept.model_dump(include=kept.model_fields_set)
    if lm is not None and data.get("lm_weight") == 0:
        del data["lm_weight"]  # it says that there is none; now there is
    if words is not None and not data.get("word_weight"):
        data["word_weight"] = presets.WORD_WEIGHT
    data |= {name: value for name, value in options.items() if value is not None}
    config = configuration.parse(SearchConfig, data, "settings of the search", settings or [])
    if lm is None:
        weighed = options.get("lm_weight")
        if weighed is not None and (kept is None or not (folder / presets.LM).is_dir()):
            raise LASError(
                "--lm-weight: there is no language model to weigh; name one by --lm FOLDER"
            )
        lm = None if kept is None else presets.stored_lm(folder, config)
    if words is None and config.word_weight > 0:
        if kept is None or not (folder / presets.WORDS).is_dir():
            raise LASError(
                "word_weight: there is no word model to weigh; name one by --words FOLDER"
            )
        words = presets.stored_words(folder, config)
    return config, presets.load_both(lm, words, las.text, place)
