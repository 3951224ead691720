"""Make a model folder to ship: weights as int8, settings of the search, a language model.

    python recipes/general/bundle.py MODEL LM SEARCH.yaml OUTPUT [--words FOLDER] [--dtype DTYPE]

Rounding the weights to int8 with a scale a row quarters their bytes, to float16 halves them; the
reports of the bundle are made with what it ships.
"""

import argparse
import sys
from pathlib import Path

import torch

from las import config_files as configuration
from las.config import SearchConfig
from las.decoding.presets import store_search
from las.errors import LASError
from las.model.folder import read_info
from las.model.las import LAS

INFO = {
    "training_data": "see MODEL_CARD.md",
    "licence": "Apache-2.0; attributions in MODEL_CARD.md",
    "recipe": "recipes/general",
}


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "lm", "search", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument(
        "--words", type=Path, help="folder of a word model, if the search weighs it"
    )
    parser.add_argument("--dtype", choices=["int8", "float16"], default="int8", help="of weights")
    arguments = parser.parse_args()
    try:
        search = configuration.load(SearchConfig, arguments.search)
        model = LAS.from_pretrained(arguments.model)
        info = read_info(arguments.model) | INFO
        model.save_pretrained(arguments.output, info, getattr(torch, arguments.dtype))
        lm = arguments.lm if search.lm_weight > 0 else None
        words = arguments.words if search.word_weight > 0 else None
        store_search(arguments.output, search, lm, words)
    except LASError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
