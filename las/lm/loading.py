"""Loads a language model of any kind, which the files in its folder identify."""

from pathlib import Path

import torch

from las.errors import LASError
from las.lm import lstm, ngram, word_ngram


def load(
    folder: str | Path, device: str | torch.device = "cpu"
) -> lstm.LanguageModel | ngram.NgramModel:
    """Load a character language model, LSTM or n-gram.

    Raises:
        LASError: the folder has none, or a file is missing or corrupt.
    """
    folder = Path(folder)
    if (folder / ngram.CONFIG).is_file():
        if (folder / lstm.CONFIG).is_file():
            raise LASError(f"{folder}: has both {lstm.CONFIG} and {ngram.CONFIG}; remove one")
        return ngram.NgramModel.load(folder, device)
    if (folder / word_ngram.CONFIG).is_file():
        raise LASError(f"{folder}: a model of words, not of characters; give it by --words")
    if folder.is_dir() and not (folder / lstm.CONFIG).is_file():
        names = f"neither {lstm.CONFIG} nor {ngram.CONFIG}"
        raise LASError(f"{folder}: not a language model folder: it has {names}")
    return lstm.LanguageModel.load(folder, device)
