"""Make a model folder to ship: weights in float16, settings of the search, a language model.

    python recipes/general/bundle.py FIRST SECOND SHARE LM SEARCH.yaml OUTPUT

The weights are SHARE of SECOND's, which was trained on from FIRST, and the rest of FIRST's: between
what the one and the other do well (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

import argparse
import sys
from pathlib import Path

import torch

from las import config as configuration
from las.config import SearchConfig
from las.errors import LASError
from las.model import LAS, read_info
from las.stored_search import store_search

INFO = {
    "training_data": "LibriSpeech (5.9 h), speechocean762, AN4, synthetic commands: 10 h",
    "licence": "Apache-2.0; attributions in MODEL_CARD.md",
    "recipe": "recipes/general",
}


def between(first: Path, second: Path, share: float) -> LAS:
    """The first model with its weights moved this share of the way to the second's.

    Raises:
        LASError: a folder holds no model, or they are of different sizes.
    """
    model = LAS.from_pretrained(first)
    weights, others = model.state_dict(), LAS.from_pretrained(second).state_dict()
    if {k: x.shape for k, x in weights.items()} != {k: x.shape for k, x in others.items()}:
        raise LASError(f"{second}: not a model of the sizes of {first}; train it on from there")
    mixed = {k: torch.lerp(x.double(), others[k].double(), share) for k, x in weights.items()}
    model.load_weights({k: x.to(weights[k].dtype) for k, x in mixed.items()}, second)
    return model


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("share", type=float)
    for name in ("lm", "search", "output"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    try:
        search = configuration.load(SearchConfig, arguments.search)
        model = between(arguments.first, arguments.second, arguments.share)
        info = read_info(arguments.second) | INFO
        model.save_pretrained(arguments.output, info, torch.float16)
        store_search(arguments.output, search, arguments.lm)
    except LASError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
