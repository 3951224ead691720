"""The command ``las info``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from las.imports import frozen_imports
from las.version import __version__


def info(
    model: Annotated[
        Path | None, typer.Argument(help="Model folder. Default: the bundled model.")
    ] = None,
) -> None:
    """Print versions, and the training, search and configuration of a model."""
    with frozen_imports():
        import torch
        import torchaudio

        from las import config_files as configuration
        from las.decoding import presets
        from las.model.folder import bundled, read_info
        from las.model.las import LAS
        from las.transcription.confidence import stored as stored_confidence

    folder = model or bundled()
    las = LAS.from_pretrained(folder)
    print(f"listen-attend-spell {__version__}, torch {torch.__version__}, ", end="")
    print(f"torchaudio {torchaudio.__version__}, Python {sys.version.split()[0]}")
    print(f"model: {folder}")
    print(f"parameters: {sum(p.numel() for p in las.parameters()):,}")
    for key, value in read_info(folder).items():
        print(f"{key}: {value}")
    if (search := presets.summary(folder)) is not None:
        print(f"search: {search}")
    if (confidence := stored_confidence(folder)) is not None:
        numbers = f"slope {confidence.slope:.3g}, offset {confidence.offset:.3g}"
        print(f"confidence: calibrated ({numbers})")
    print(configuration.to_yaml(las.config), end="")
