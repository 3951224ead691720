"""Changed settings of a resumed training, and whether they are allowed to change."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from las.config import Settings
from las.errors import LASError

_LONGEST = 200  # characters of a value in a message

Change = tuple[str, Any, Any]
"""Dotted name of a setting, old value and new value."""


def differences(settings: Settings, written: str) -> list[Change]:
    """Differences to settings written by :func:`las.config_files.to_yaml`, perhaps long ago.

    Settings that did not exist then count as having their defaults.

    Raises:
        ValueError: the text is not settings, or of another kind.
    """
    kind = type(settings)
    try:
        data = yaml.safe_load(written)
        try:
            data = kind.model_validate(data).model_dump(mode="json")
        except ValidationError:  # a setting that was removed, or a value that is no longer valid
            data = _completed(data, kind().model_dump(mode="json"))
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError("no settings") from error
    return list(_compared(data, settings.model_dump(mode="json")))


def check(
    settings: Settings,
    written: object,
    path: Path,
    free: Collection[str],
    more: Collection[Change] = (),
) -> list[Change]:
    """Refuse to resume a checkpoint if settings differ that must not change.

    Args:
        settings: of this run.
        written: settings of the checkpoint, as YAML.
        path: of the checkpoint.
        free: dotted names of the settings that may change.
        more: further values that must not change.

    Returns:
        the settings that changed, all of which may.

    Raises:
        LASError: others changed; the message names all of them.
    """
    try:
        if not isinstance(written, str):
            raise ValueError("no settings")
        found = differences(settings, written)
    except ValueError:
        raise LASError(
            f"{path}: belongs to a training of another kind; choose a new folder"
        ) from None
    refused = [change for change in found if change[0] not in free]
    refused += [change for change in more if change[1] != change[2]]
    if refused:
        raise refusal(path, refused)
    return found


def refusal(path: Path, refused: Collection[Change]) -> LASError:
    """The error of a checkpoint that cannot be resumed because of these changes."""
    return LASError(
        f"{path}: belongs to a training with other settings ({shown(refused)}); use those, "
        "or choose a new folder"
    )


def shown(found: Collection[Change]) -> str:
    """Changes in one line: ``training.epochs: 2 -> 4; data.workers: 1 -> 0``."""
    return "; ".join(f"{name}: {_value(old)} -> {_value(new)}" for name, old, new in found)


def _compared(old: Any, new: Any, name: str = "") -> Iterator[Change]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield name, old, new
        return
    for key in [*new, *(key for key in old if key not in new)]:
        yield from _compared(old.get(key), new.get(key), f"{name}.{key}" if name else str(key))


def _completed(data: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Settings completed by defaults."""
    filled = {**defaults, **data}
    for name, value in filled.items():
        if isinstance(value, dict) and isinstance(defaults.get(name), dict):
            filled[name] = _completed(value, defaults[name])
    return filled


def _value(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    text = " ".join(text.removesuffix("...\n").split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
