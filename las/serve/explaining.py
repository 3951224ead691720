"""Explanations of uploads, as ``las explain`` makes them: read, explained, and made a page of.

Only the middle step needs the model. The modules of `las.explain` need the extra ``explain``, which
the rest of the server does without.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from las.imports import missing_extra
from las.serve.errors import SERVER, APIError
from las.transcription.transcriber import Transcriber
from las.transcription.word_timestamps import timed_words

if TYPE_CHECKING:
    from las.explain.types import Explanation

SECONDS = 20.0
"""What is explained of a file: all other requests wait for it."""


def read(path: Path, rate: int) -> tuple[np.ndarray, bool]:
    """What is explained of a file: its first :data:`SECONDS`.

    Returns:
        the waveform [S], and whether there is more of the file.

    Raises:
        APIError: explanations need a package that is not installed.
        AudioError: the file cannot be read.
    """
    try:
        from las.explain import explainer, html  # noqa: F401 (what it needs is missed now)
    except ModuleNotFoundError as error:
        cure = missing_extra(error)
        if cure is None:
            raise
        raise APIError(501, cure, kind=SERVER, code="not_installed") from None
    return explainer.beginning(path, rate, SECONDS)


def explain(
    transcriber: Transcriber, sound: tuple[np.ndarray, bool], name: str, model: str
) -> "Explanation":
    """Explain the text of a file.

    Args:
        transcriber: whose model, search and words are explained.
        sound: see :func:`read`.
        name: of the file.
        model: its name.
    """
    from las.explain.explainer import Explainer

    explainer = Explainer(
        transcriber.model,
        transcriber.device,
        transcriber.config,
        transcriber.lm,
        model,
        transcriber.timer or timed_words,
    )
    waveform, cut = sound
    return explainer.array(waveform, name, cut)


def page(found: "Explanation") -> str:
    """The page of an explanation."""
    from las.explain import html

    return html.page(found)
