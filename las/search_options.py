"""Options of the commands that search, and what they ask for."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from las.errors import LASError

if TYPE_CHECKING:
    import torch

    from las.config import SearchConfig
    from las.model import LAS
    from las.search import LanguageModel


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


DeviceOption = Annotated[Device, typer.Option(help="auto takes a GPU if there is one.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to torch.")]
BeamOption = Annotated[int | None, typer.Option(min=1, help="Hypotheses kept; 1 is greedy.")]
CTCOption = Annotated[
    float | None, typer.Option(help="Weight of CTC in the search, 0 to below 1; default: 0.")
]
LMOption = Annotated[Path | None, typer.Option(help="Folder of a language model for the search.")]
LMWeightOption = Annotated[float | None, typer.Option(help="Its weight; default: 0.3.")]
SearchOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Another setting of the search, e.g. coverage=0.05; repeatable.",
    ),
]


def search_settings(
    las: "LAS",
    place: "torch.device",
    lm: Path | None,
    settings: list[str] | None,
    **options: float | None,
) -> "tuple[SearchConfig, LanguageModel | None]":
    """The settings of a search, and its language model if it has one.

    Args:
        las: the recogniser.
        place: where it is, and where the language model goes.
        lm: folder of the language model.
        settings: ``key=value`` each; they count more than options.
        options: settings by name; None is not given.

    Raises:
        LASError: a setting is not right, or the language model does not fit.
    """
    from las import config as configuration
    from las.config import SearchConfig

    if lm is None and options.get("lm_weight") is not None:
        raise LASError("--lm-weight: there is no language model to weigh; name one by --lm FOLDER")
    given = {name: value for name, value in options.items() if value is not None}
    config = configuration.parse(SearchConfig, given, "settings of the search", settings or [])
    if lm is None:
        return config, None
    from las.lm import LanguageModel

    model = LanguageModel.load(lm, place)
    if model.text.alphabet != las.text.alphabet:
        raise LASError(
            f"{lm}: this language model writes {model.text.alphabet!r} and the recogniser "
            f"{las.text.alphabet!r}: train one with the recogniser's alphabet"
        )
    return config, model
