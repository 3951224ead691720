"""Weights as safetensors: written whole or not at all, read without unpickling code."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from las.errors import LASError
from las.storage import int8 as rounding
from las.storage.atomic import replacing

WEIGHTS = "model.safetensors"
FORMAT = "listen-attend-spell/1"
INT8_FORMAT = "listen-attend-spell/2"  # the same with matrices as las.storage.int8 stores them


def write_weights(
    weights: dict[str, Tensor],
    path: Path,
    info: Mapping[str, str] | None = None,
    form: str = FORMAT,
) -> None:
    """Write tensors as safetensors under a temporary name, then rename.

    Args:
        weights: by name.
        path: of the file.
        info: what to remember with them.
        form: recorded in the file, for :func:`read_weights`.

    Raises:
        OSError: they cannot be written, say because the disk is full.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    metadata = {"format": form, "info": json.dumps(dict(info or {}))}
    with replacing(path) as temporary:
        try:
            safetensors.torch.save_file(contiguous, temporary, metadata)
        except safetensors.SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def fit_weights(
    module: nn.Module, weights: Mapping[str, Tensor], origin: Path, config: str
) -> None:
    """Load weights that were read from ``origin``; they must fit a module built from ``config``.

    Raises:
        LASError: a tensor is missing, unknown or of another shape.
    """
    own = module.state_dict()
    wrong = sorted(set(own) ^ set(weights)) or sorted(
        name for name in own if own[name].shape != weights[name].shape
    )
    if wrong:
        raise LASError(
            f"{origin}: these weights are of another model than {config} beside them says "
            f"({len(wrong)} tensors differ, the first is {wrong[0]})"
        )
    module.load_state_dict(weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read safetensors, or say in one line why not; what was rounded to int8 comes as float32."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            form = (file.metadata() or {}).get("format", FORMAT)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        if form == INT8_FORMAT:
            return rounding.restored(weights)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise corrupt(path, error) from None
    if form.startswith(FORMAT[:-1]) and form != FORMAT:
        raise LASError(f"{path}: its format {form} is not known here: update listen-attend-spell")
    return weights


def corrupt(path: Path, error: Exception) -> LASError:
    """What is said of a file of weights that cannot be read."""
    if not path.is_file():
        return LASError(f"{path}: no such file; name a model folder")
    reason = " ".join(str(error).split())
    return LASError(f"{path}: corrupt or no safetensors file ({reason})")
