"""Options that several commands share."""

from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption


class Command(TyperCommand):
    """A command in which no option is taken for the path of the one before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of the base, which takes whatever follows an option for its value.

        Raises:
            typer.BadParameter: a path begins with a hyphen.
        """
        try:
            return super().parse_args(ctx, args)
        finally:  # before what is wrong in consequence, such as an argument too many
            for option in self.params:
                if isinstance(option, TyperOption):
                    _check_path(ctx, option)


def _check_path(ctx: Any, option: TyperOption) -> None:
    value = ctx.params.get(option.name)
    for path in value if isinstance(value, list) else [value]:
        if isinstance(path, Path) and str(path).startswith("-"):
            what = f"it needs a path, and {str(path)!r} is an option; write ./{path} if not."
            raise typer.BadParameter(what, ctx=ctx, param=option)


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
