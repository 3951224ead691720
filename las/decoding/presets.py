"""Search settings and language models of a model folder: ``search.yaml``, ``lm/``, ``words/``.

They are written by `las tune` or by hand, and are the defaults of `las transcribe` and `las
evaluate`; in Python :func:`stored_search` reads them. Without ``search.yaml`` search is greedy.
"""

import shutil
from pathlib import Path

import torch

from las import config_files as configuration
from las.config import SearchConfig
from las.decoding.hypothesis import CharacterAndWordLM, LanguageModel, split_lm
from las.decoding.search import describe
from las.errors import LASError
from las.lm.loading import load
from las.lm.word_ngram import WordModel
from las.model.folder import bundled, model_settings
from las.storage.atomic import locked, replacing
from las.storage.settings import save_settings
from las.text.characters import Characters
from las.text.subwords import Subwords, tokenizer

SETTINGS = "search.yaml"
LM = "lm"
WORDS = "words"
WORD_WEIGHT = 0.3  # of a word model that is given without a weight


def stored_search(
    folder: str | Path | None = None, device: str | torch.device = "cpu"
) -> tuple[SearchConfig, LanguageModel | None]:
    """The search of a model folder: arguments for ``las.decoding.search.search``.

    Args:
        folder: the model folder; None is the model that ships with the package.
        device: where to put the language model.

    Returns:
        the settings, greedy search if the folder has none; and its language model, if any, with
        its word model (:class:`las.decoding.hypothesis.CharacterAndWordLM`).

    Raises:
        LASError: a file of the folder is not valid; the message names it.
    """
    folder = bundled() if folder is None else Path(folder)
    config = stored_settings(folder)
    if config is None:
        return SearchConfig(), None
    lm, words = stored_lm(folder, config), stored_words(folder, config)
    if lm is None and words is None:
        return config, None
    model = model_settings(folder)
    return config, load_both(
        lm, words, tokenizer(model.alphabet, model.pieces, model.text.normalizer), device
    )


def stored_settings(folder: Path) -> SearchConfig | None:
    """The search settings of a model folder, if it has any.

    Raises:
        LASError: the file cannot be read, or a setting is not valid.
    """
    path = folder / SETTINGS
    return configuration.load(SearchConfig, path) if path.exists() else None


def stored_lm(folder: Path, config: SearchConfig) -> Path | None:
    """Folder of the language model that stored settings use; None if they use none.

    Settings without ``lm_weight`` use the language model if there is one.

    Raises:
        LASError: they use one that is missing.
    """
    lm = folder / LM
    if config.lm_weight == 0:
        return None
    if lm.is_dir():
        return lm
    if "lm_weight" not in config.model_fields_set:
        return None
    raise LASError(
        f"{folder / SETTINGS}: it uses a language model (lm_weight {config.lm_weight:g}) but "
        f"{lm} is missing: put one there, or write lm_weight: 0"
    )


def stored_words(folder: Path, config: SearchConfig) -> Path | None:
    """Folder of the word model that stored settings use; None if they use none.

    Raises:
        LASError: they use one that is missing.
    """
    words = folder / WORDS
    if config.word_weight == 0:
        return None
    if words.is_dir():
        return words
    raise LASError(
        f"{folder / SETTINGS}: it uses a word model (word_weight {config.word_weight:g}) but "
        f"{words} is missing: put one there, or write word_weight: 0"
    )


def load_both(
    lm: Path | None, words: Path | None, units: Characters, device: str | torch.device
) -> LanguageModel | None:
    """Read the language models of two folders; see :func:`load_lm` and :func:`load_words`."""
    characters = None if lm is None else load_lm(lm, units, device)
    return (
        characters
        if words is None
        else CharacterAndWordLM(characters, load_words(words, units, device))
    )


def load_words(folder: Path, units: Characters, device: str | torch.device) -> WordModel:
    """Read a word model for a recogniser of these units.

    Raises:
        LASError: it cannot be read, or has other units.
    """
    model = WordModel.load(folder, device)
    if isinstance(units, Subwords):
        raise LASError(
            f"{folder}: this word model needs a recogniser of characters, and this one writes "
            "subwords: search without it"
        )
    if model.text.alphabet != units.alphabet:
        raise LASError(
            f"{folder}: the alphabet of this word model is {model.text.alphabet!r} and that of the "
            f"recogniser {units.alphabet!r}: make one with the recogniser's alphabet"
        )
    return model


def load_lm(folder: Path, units: Characters, device: str | torch.device) -> LanguageModel:
    """Read a language model for a recogniser of these units.

    Raises:
        LASError: it cannot be read, or has other units.
    """
    model = load(folder, device)
    if isinstance(units, Subwords):
        raise LASError(
            f"{folder}: this language model predicts characters and the recogniser writes "
            "subwords: search without it"
        )
    if model.text.alphabet != units.alphabet:
        raise LASError(
            f"{folder}: the alphabet of this language model is {model.text.alphabet!r} and that of "
            f"the recogniser {units.alphabet!r}: train one with the recogniser's alphabet"
        )
    return model


def lm_name(folder: Path) -> str:
    """The name of a language model in reports: its folder, with the parent if that says more."""
    folder = folder.resolve()
    return (
        f"{folder.parent.name}/{folder.name}"
        if folder.name in (LM, WORDS, "model")
        else folder.name
    )


def model_names(
    model: LanguageModel | None, lm: Path, words: Path
) -> tuple[str | None, str | None]:
    """Names of the models that :func:`load_both` read from two folders; None for a missing one."""
    found = zip(split_lm(model), (lm, words), strict=True)
    character_name, word_name = (
        None if part is None else lm_name(folder) for part, folder in found
    )
    return character_name, word_name


def summary(folder: Path) -> str | None:
    """The stored settings in one line; None if there are none."""
    config = stored_settings(folder)
    if config is None:
        return None
    lm, words = stored_lm(folder, config), stored_words(folder, config)
    return describe(config, *(None if path is None else lm_name(path) for path in (lm, words)))


def store_search(
    folder: Path, config: SearchConfig, lm: Path | None = None, words: Path | None = None
) -> Path:
    """Store settings and copies of language models in a model folder.

    Args:
        folder: the model folder.
        config: the settings; without a language model its weight is stored as 0.
        lm: folder of the language model; its files are copied, folders in it are not.
        words: folder of the word model, in the same way.

    Returns:
        The file of the settings. If it fails, there is none: search is then greedy.
    """
    path = folder / SETTINGS
    with locked(folder, wait=True):  # else the settings of one process could meet another's models
        for source, name, weight in ((lm, LM, "lm_weight"), (words, WORDS, "word_weight")):
            if source is None:
                config = config.model_copy(update={weight: 0.0})
            elif source.resolve() != (folder / name).resolve():
                path.unlink(missing_ok=True)  # the old settings are not for the new models
                _copy(source, folder / name)
        save_settings(config, path)
    return path


def carry_over(source: Path, folder: Path) -> list[str]:
    """Copy settings and language models to the folder of a model of the same alphabet.

    Returns:
        Names of what was copied; none if the target has its own settings.

    Raises:
        LASError: the settings are not valid, or use a model that is missing.
    """
    with locked(folder, wait=True):
        if (folder / SETTINGS).exists():
            return []
        config = stored_settings(source)
        if config is not None:
            stored_lm(source, config), stored_words(source, config)
        names = [name for name in (LM, WORDS) if (source / name).is_dir()]
        for name in names:
            _copy(source / name, folder / name)
        if config is not None:  # the file itself: settings that it leaves out stay out
            with replacing(folder / SETTINGS) as temporary:
                shutil.copyfile(source / SETTINGS, temporary)
            names.insert(0, SETTINGS)
        return names


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a folder; at any time the target is the old one or the new one."""
    new, old = (target.with_name(f".{state}-{target.name}") for state in ("partial", "old"))
    for leftover in (new, old):  # of a copy that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        for path in source.iterdir():
            if path.is_file():
                with replacing(new / path.name) as temporary:
                    shutil.copyfile(path, temporary)
        if target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
