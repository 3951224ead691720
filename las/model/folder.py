"""Model folders: what is in one, and the one that ships with the package."""

import json
from importlib import resources
from pathlib import Path

import safetensors
import safetensors.torch

from las import config as configuration
from las.config import ModelConfig
from las.errors import LASError
from las.storage.weights import WEIGHTS, corrupt

CONFIG = "config.yaml"


def check_model(folder: Path) -> None:
    """Refuse what is no model folder.

    Raises:
        LASError: it is missing, or a file in it is.
    """
    if not folder.is_dir():
        raise LASError(f"{folder}: no such model folder")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise LASError(f"{folder}: not a model folder: it has no {name}")


def model_settings(folder: Path) -> ModelConfig:
    """The settings of a model folder.

    Raises:
        LASError: there are none, or one is not right.
    """
    path = folder / CONFIG
    try:
        return configuration.load(ModelConfig, path)
    except LASError as error:
        # A folder of before there was this setting: its texts were not normalised by it.
        if "text.normalizer" not in str(error):
            raise
        return configuration.load(ModelConfig, path, ["text.normalizer=none"])


def bundled() -> Path:
    """Folder of the model that ships with the package."""
    return Path(str(resources.files("las"))) / "pretrained"


def read_info(folder: Path) -> dict[str, str]:
    """What was remembered with the weights of a model folder.

    Raises:
        LASError: the weights are missing or corrupt.
    """
    path = folder / WEIGHTS
    try:
        with safetensors.safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get("info", "{}"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise corrupt(path, error) from None
