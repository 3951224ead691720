"""Model folders: their files, and the one that ships with the package."""

import json
from importlib import resources
from pathlib import Path

import safetensors
import safetensors.torch

from las import config_files as configuration
from las.config import ModelConfig
from las.errors import LASError
from las.storage.exported import is_exported
from las.storage.weights import WEIGHTS, corrupt

CONFIG = "config.yaml"
_CURE = (
    "name the folder `model` of a training (the bundled model needs no --model, and is `bundled` "
    "for `las export`)"
)


def check_model(folder: Path) -> None:
    """Check that a folder is a model folder.

    Raises:
        LASError: it is missing, or a file in it is; or it is an exported model.
    """
    _refuse_exported(folder)
    if not folder.is_dir():
        raise LASError(f"{folder}: no such model folder; {_CURE}")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise LASError(f"{folder}: not a model folder: it has no {name}; {_CURE}")


def model_settings(folder: Path) -> ModelConfig:
    """The settings of a model folder.

    Raises:
        LASError: the file is missing, or a setting is not valid.
    """
    _refuse_exported(folder)
    path = folder / CONFIG
    try:
        return configuration.load(ModelConfig, path)
    except LASError as error:
        # Written before this setting existed: its texts were not normalised.
        if "text.normalizer" not in str(error):
            raise
        return configuration.load(ModelConfig, path, ["text.normalizer=none"])


def _refuse_exported(folder: Path) -> None:
    if is_exported(folder):
        raise LASError(
            f"{folder}: an exported model, which only `las transcribe` and "
            "las.export.runtime take; name the model folder that it was made from"
        )


def bundled() -> Path:
    """Folder of the model that ships with the package."""
    return Path(str(resources.files("las"))) / "pretrained"


def read_info(folder: Path) -> dict[str, str]:
    """The metadata that is stored with the weights of a model folder.

    Raises:
        LASError: the weights are missing or corrupt.
    """
    path = folder / WEIGHTS
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get("info", "{}"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise corrupt(path, error) from None
