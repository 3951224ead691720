"""The kinds of language model there are, told apart by what is in their folders."""

from pathlib import Path

import torch

from las import lm, ngram, word_ngram
from las.errors import LASError


def load(
    folder: str | Path, device: str | torch.device = "cpu"
) -> lm.LanguageModel | ngram.NgramModel:
    """Read the folder of a language model of either kind.

    Raises:
        LASError: it is not one, or a file is missing or corrupt.
    """
    folder = Path(folder)
    if (folder / ngram.CONFIG).is_file():
        if (folder / lm.CONFIG).is_file():
            raise LASError(f"{folder}: holds both {lm.CONFIG} and {ngram.CONFIG}; remove one")
        return ngram.NgramModel.load(folder, device)
    if (folder / word_ngram.CONFIG).is_file():
        raise LASError(f"{folder}: a model of words, not of characters; give it by --words")
    if folder.is_dir() and not (folder / lm.CONFIG).is_file():
        names = f"neither {lm.CONFIG} nor {ngram.CONFIG}"
        raise LASError(f"{folder}: not a language model folder: it has {names}")
    return lm.LanguageModel.load(folder, device)
