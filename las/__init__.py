"""Listen, Attend and Spell: an attention encoder-decoder for speech recognition.

``las.load().transcribe("talk.mp3")`` is what most need; see docs/api.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from las.api import Recognizer, load
    from las.config import SearchConfig
    from las.errors import LASError, LASWarning
    from las.transcription.types import Segment, Transcription, Word

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

# Read when they are first asked for: `import las` alone need not wait for torch.
_HOMES = {
    "LASError": "errors",
    "LASWarning": "errors",
    "Recognizer": "api",
    "SearchConfig": "config",
    "Segment": "transcription.types",
    "Transcription": "transcription.types",
    "Word": "transcription.types",
    "load": "api",
}


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        value = _version()
    elif name in _HOMES:
        value = getattr(import_module(f"las.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("listen-attend-spell")
    except PackageNotFoundError:  # a source tree that is not installed
        return "0.0.0"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
