"""Explanations of recognised texts: alignment, probabilities, alternatives; as data and pages."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from las.explain.explainer import Explainer

__all__ = ["Explainer"]


def __getattr__(name: str) -> object:
    # Loaded on first use: the modules of this folder need less than Explainer does.
    if name != "Explainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("las.explain.explainer").Explainer
