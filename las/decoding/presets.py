"""Search settings and language models that a folder keeps: ``search.yaml``, ``lm/``, ``words/``.

`las tune` writes them, or a person does. `las transcribe` and `las evaluate` begin with them; so
does who calls the library with :func:`stored_search`. Without ``search.yaml`` search is greedy.
"""

import shutil
from pathlib import Path

import torch

from las import config as configuration
from las.config import SearchConfig
from las.decoding.hypothesis import LanguageModel, WithWords, parts
from las.decoding.search import describe
from las.errors import LASError
from las.lm.loading import load
from las.lm.word_ngram import WordModel
from las.model.folder import bundled, model_settings
from las.storage.atomic import locked, replacing
from las.storage.settings import save_settings
from las.text.characters import Characters
from las.text.subwords import Pieces, units

SETTINGS = "search.yaml"
LM = "lm"
WORDS = "words"
WORD_WEIGHT = 0.3  # of a word model that is named and not weighed


def stored_search(
    folder: str | Path | None = None, device: str | torch.device = "cpu"
) -> tuple[SearchConfig, LanguageModel | None]:
    """How the model of a folder is to be searched: what to give to ``las.decoding.search.search``.

    Args:
        folder: the model folder; None is the model that ships with the package.
        device: where to put the language model.

    Returns:
        settings, greedy search if the folder keeps none; and the language model if there is one,
        with the words beside it if there are (:class:`las.decoding.hypothesis.WithWords`).

    Raises:
        LASError: what the folder keeps is not right; the message names the file.
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
        lm, words, units(model.alphabet, model.pieces, model.text.normalizer), device
    )


def stored_settings(folder: Path) -> SearchConfig | None:
    """The settings that a model folder keeps, if it does.

    Raises:
        LASError: the file cannot be read, or a setting is not right.
    """
    path = folder / SETTINGS
    return configuration.load(SearchConfig, path) if path.exists() else None


def stored_lm(folder: Path, config: SearchConfig) -> Path | None:
    """Folder of the language model that stored settings ask for, None if they ask for none.

    Settings that do not name ``lm_weight`` take the language model if there is one.

    Raises:
        LASError: they weigh one that is not there.
    """
    lm = folder / LM
    if config.lm_weight == 0:
        return None
    if lm.is_dir():
        return lm
    if "lm_weight" not in config.model_fields_set:
        return None
    raise LASError(
        f"{folder / SETTINGS}: it weighs a language model (lm_weight {config.lm_weight:g}) and "
        f"{lm} is missing: put one there, or write lm_weight: 0"
    )


def stored_words(folder: Path, config: SearchConfig) -> Path | None:
    """Folder of the word model that stored settings ask for, None if they ask for none.

    Raises:
        LASError: they weigh one that is not there.
    """
    words = folder / WORDS
    if config.word_weight == 0:
        return None
    if words.is_dir():
        return words
    raise LASError(
        f"{folder / SETTINGS}: it weighs a word model (word_weight {config.word_weight:g}) and "
        f"{words} is missing: put one there, or write word_weight: 0"
    )


def load_both(
    lm: Path | None, words: Path | None, units: Characters, device: str | torch.device
) -> LanguageModel | None:
    """Read the language models of two folders; see :func:`load_lm` and :func:`load_words`."""
    characters = None if lm is None else load_lm(lm, units, device)
    return characters if words is None else WithWords(characters, load_words(words, units, device))


def load_words(folder: Path, units: Characters, device: str | torch.device) -> WordModel:
    """Read a word model that is to help a recogniser of these units.

    Raises:
        LASError: it cannot be read, or is of other units.
    """
    model = WordModel.load(folder, device)
    if isinstance(units, Pieces):
        raise LASError(
            f"{folder}: this model scores words of characters and the recogniser writes pieces: "
            "search without it"
        )
    if model.text.alphabet != units.alphabet:
        raise LASError(
            f"{folder}: the words of this model are of {model.text.alphabet!r} and the recogniser "
            f"writes {units.alphabet!r}: make one with the recogniser's alphabet"
        )
    return model


def load_lm(folder: Path, units: Characters, device: str | torch.device) -> LanguageModel:
    """Read a language model that is to help a recogniser of these units.

    Raises:
        LASError: it cannot be read, or is of other units.
    """
    model = load(folder, device)
    if isinstance(units, Pieces):
        raise LASError(
            f"{folder}: this language model predicts characters and the recogniser writes pieces: "
            "search without it"
        )
    if model.text.alphabet != units.alphabet:
        raise LASError(
            f"{folder}: this language model writes {model.text.alphabet!r} and the recogniser "
            f"{units.alphabet!r}: train one with the recogniser's alphabet"
        )
    return model


def lm_name(folder: Path) -> str:
    """What reports call a language model: its folder, with the parent of one that all have."""
    folder = folder.resolve()
    return (
        f"{folder.parent.name}/{folder.name}"
        if folder.name in (LM, WORDS, "model")
        else folder.name
    )


def model_names(
    model: LanguageModel | None, lm: Path, words: Path
) -> tuple[str | None, str | None]:
    """Names of what :func:`load_both` read from two folders; None of what there is not."""
    found = zip(parts(model), (lm, words), strict=True)
    one, two = (None if part is None else lm_name(folder) for part, folder in found)
    return one, two


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
    """Keep settings and copies of language models in a model folder.

    Args:
        folder: the model folder.
        config: the settings; without a language model its weight is stored as 0.
        lm: folder of the language model; its files are copied, folders in it are not.
        words: folder of the word model, in the same way.

    Returns:
        The file of the settings. A failure on the way leaves none: search is then greedy.
    """
    path = folder / SETTINGS
    with locked(folder, wait=True):  # or the settings of one could stand beside another's models
        for source, name, weight in ((lm, LM, "lm_weight"), (words, WORDS, "word_weight")):
            if source is None:
                config = config.model_copy(update={weight: 0.0})
            elif source.resolve() != (folder / name).resolve():
                path.unlink(missing_ok=True)  # the old settings are not for the new models
                _copy(source, folder / name)
        save_settings(config, path)
    return path


def carry_over(source: Path, folder: Path) -> list[str]:
    """Copy the settings and language models of a model folder to that of a model of its alphabet.

    Returns:
        Names of what was copied, none if the other folder has settings of its own.

    Raises:
        LASError: the settings are not right, or weigh a model that is missing.
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
        if config is not None:  # as it was written: what it leaves open stays open
            with replacing(folder / SETTINGS) as temporary:
                shutil.copyfile(source / SETTINGS, temporary)
            names.insert(0, SETTINGS)
        return names


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a folder; the target is the old one or the new one, never half of it."""
    new, old = (target.with_name(f".{state}-{target.name}") for state in ("partial", "old"))
    for left in (new, old):  # of a copy that was killed
        shutil.rmtree(left, ignore_errors=True)
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
