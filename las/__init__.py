"""Listen, Attend and Spell: an attention encoder-decoder for speech recognition.

``las.load().transcribe("talk.mp3")`` is the usual call; see docs/api.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from las.api import Recognizer, load
    from las.config import SearchConfig
    from las.errors import LASError, LASWarning
    from las.transcription.types import Segment, Transcription, Word
    from las.version import __version__

__all__ = [
    "LASError",
    "LASWarning",
    "Recognizer",
    "SearchConfig",
    "Segment",
    "Transcription",
    "Word",
    "__version__",
    "load",
]

# Imported on first use, so that `import las` does not import torch.
_HOMES = {
    "LASError": "errors",
    "LASWarning": "errors",
    "Recognizer": "api",
    "SearchConfig": "config",
    "Segment": "transcription.types",
    "Transcription": "transcription.types",
    "Word": "transcription.types",
    "__version__": "version",
    "load": "api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"las.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
