"""Model folders -> models and the settings of their search, as the options of a command ask."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from las.cli.options import Device, Precision
from las.errors import LASError
from las.imports import frozen_imports

if TYPE_CHECKING:
    import torch

    from las.config import SearchConfig
    from las.decoding.hypothesis import LanguageModel
    from las.model.las import LAS


def load_model(
    folder: Path, device: Device, threads: int, precision: Precision = Precision.AUTO
) -> "tuple[LAS, torch.device]":
    """Load a model for recognition.

    Returns:
        the model and its device.

    Raises:
        LASError: the device or number of threads is not available, or the folder is not valid.
    """
    with frozen_imports():
        from las.model.las import LAS
        from las.runtime import choose_device, choose_threads, inference_precision

    choose_threads(threads)
    torch_device = choose_device(device.value)
    las = LAS.from_pretrained(folder, torch_device)
    las.precision = inference_precision(precision.value)
    return las, torch_device


def load_exported(
    folder: Path, threads: int, asked: Mapping[str, bool]
) -> "tuple[LAS, torch.device]":
    """Load what `las export` wrote, for greedy search.

    Args:
        folder: of the export.
        threads: CPU threads.
        asked: for options that need a model folder, whether each was given.

    Returns:
        what stands for the model, and its device.

    Raises:
        LASError: such an option was given, or the folder is not valid.
    """
    for option, given in asked.items():
        if given:
            raise LASError(
                f"{option}: {folder} is an exported model, for greedy search in float32 on a CPU; "
                "leave the option out, or name the model folder that it was made from"
            )
    with frozen_imports():
        from las.export.adapter import load_as_las
        from las.runtime import choose_device, choose_threads

    return load_as_las(folder, choose_threads(threads)), choose_device("cpu")


def search_settings(
    las: "LAS",
    torch_device: "torch.device",
    folder: Path,
    lm: Path | None,
    settings: list[str] | None,
    *,
    words: Path | None = None,
    greedy: bool = False,
    **options: float | None,
) -> "tuple[SearchConfig, LanguageModel | None]":
    """The settings of a search, and its language models if there are any.

    Args:
        las: the recogniser.
        torch_device: its device, and that of the language models.
        folder: its model folder.
        lm: see :func:`chosen_search`, as for the others.
        settings: ``key=value`` each.
        words: folder of the word model.
        greedy: begin with greedy search.
        options: settings by name.

    Raises:
        LASError: a setting is not valid, or the language model does not fit.
    """
    from las.decoding import presets

    config, lm, words = chosen_search(folder, lm, settings, words=words, greedy=greedy, **options)
    return config, presets.load_both(lm, words, las.text, torch_device)


def chosen_search(
    folder: Path,
    lm: Path | None,
    settings: list[str] | None,
    *,
    words: Path | None = None,
    greedy: bool = False,
    **options: float | None,
) -> "tuple[SearchConfig, Path | None, Path | None]":
    """The settings of a search, and the folders of its language model and word model.

    They begin with the stored search of the model folder (:mod:`las.decoding.presets`); options
    replace single settings of it, and ``settings`` replace options.

    Args:
        folder: the model folder.
        lm: folder of the language model; None is the model folder's, if its settings use one.
        settings: ``key=value`` each.
        words: folder of the word model, likewise.
        greedy: begin with greedy search rather than the stored one.
        options: settings by name; None: not given.

    Raises:
        LASError: a setting is not valid, or a language model is missing.
    """
    from las import config_files as configuration
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
    return config, lm, words
