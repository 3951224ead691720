"""Weights as safetensors files, written atomically."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from las.errors import LASError
from las.storage.atomic import replacing
from las.storage.int8 import dequantised

WEIGHTS = "model.safetensors"
FORMAT = "listen-attend-spell/1"
INT8_FORMAT = "listen-attend-spell/2"  # with matrices quantised by las.storage.int8


def write_weights(
    weights: dict[str, Tensor],
    path: Path,
    info: Mapping[str, str] | None = None,
    form: str = FORMAT,
) -> None:
    """Write tensors as safetensors, atomically.

    Args:
        weights: by name.
        path: of the file.
        info: metadata to store with them.
        form: format, stored for :func:`read_weights`.

    Raises:
        OSError: they cannot be written, for example because the disk is full.
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
    """Load weights into a module built from ``config``; names and shapes must match.

    Raises:
        LASError: a tensor is missing, unknown or of another shape; the message names ``origin``.
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
    """Read a safetensors file; int8 matrices become float32.

    Raises:
        LASError: the file is missing, corrupt or of a newer version.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            form = (file.metadata() or {}).get("format", FORMAT)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        if form == INT8_FORMAT:
            return dequantised(weights)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise corrupt(path, error) from None
    if form.startswith(FORMAT[:-1]) and form != FORMAT:
        raise LASError(
            f"{path}: its format {form} is newer than this version; update listen-attend-spell"
        )
    return weights


def corrupt(path: Path, error: Exception) -> LASError:
    """The error of a weights file that cannot be read."""
    if not path.is_file():
        return LASError(f"{path}: no such file; name a model folder")
    reason = " ".join(str(error).split())
    return LASError(f"{path}: corrupt or no safetensors file ({reason})")
