"""Why this text: what a model considered, as data, HTML and pictures."""

from las.explain.explainer import Explainer

__all__ = ["Explainer"]
