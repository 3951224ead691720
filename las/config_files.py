"""Settings in YAML files and on the command line.

An unknown key is an error that names the key that was probably meant.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from las.config import Settings, may_be_text
from las.config_errors import explain, overridden
from las.errors import LASError

S = TypeVar("S", bound=Settings)


def load(kind: type[S], path: str | Path, overrides: Sequence[str] = ()) -> S:
    """Read settings from a YAML file.

    Args:
        kind: class of the settings.
        path: the file.
        overrides: ``section.key=value`` with a YAML value, applied in order.

    Raises:
        LASError: the file is missing or not YAML, or a key or value is not valid.
    """
    return parse(kind, read(path), str(path), overrides)


def read(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings, without validation.

    Raises:
        LASError: the file is missing, not YAML, or not settings.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(_shipped(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LASError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise LASError(f"{path}: cannot read the configuration ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LASError(f"{path}: not YAML ({_one_line(error)})") from None
    if data is None:  # an empty file: all defaults
        data = {}
    if not isinstance(data, dict):
        raise LASError(f"{path}: not a configuration: expected `section: settings`")
    return data


def _shipped(path: Path) -> Path:
    """A configuration of a recipe as it ships with the package, if there is no such file."""
    inside = Path(str(resources.files("las"))) / path
    return inside if path.parts[:1] == ("recipes",) and not path.exists() else path


def parse(kind: type[S], data: dict[str, Any], origin: str, overrides: Sequence[str] = ()) -> S:
    """Validate settings that were read from ``origin``; see :func:`load`."""
    for override in overrides:
        _override(data, override, kind)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        place = "command line" if overridden(error, overrides) else origin
        raise LASError(" ".join(f"{place}: {explain(kind, error)}".split())) from None


def to_yaml(settings: Settings) -> str:
    """Settings as YAML, in order of definition."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _override(data: dict[str, Any], override: str, kind: type[Settings]) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise LASError(f"{override!r}: settings on the command line are written key=value")
    *sections, last = key.strip().split(".")
    annotation = _annotation(kind, [*sections, last])
    text = may_be_text(annotation) and (annotation is str or not value.startswith("["))
    for section in sections:
        if data.get(section) is None:
            data[section] = {}
        data = data[section]
        if not isinstance(data, dict):
            raise LASError(f"{override!r}: {section!r} is a value, not a section")
    if text and not (len(value) > 1 and value[0] == value[-1] and value[0] in "'\""):
        data[last] = value  # as it is: an alphabet may begin with a space, a folder be a number
        return
    try:
        data[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise LASError(f"{override!r}: the value is not YAML ({_one_line(error)})") from None


def _annotation(kind: type[Settings], names: Sequence[str]) -> Any:
    """The type of a setting; None if it is unknown."""
    found: Any = kind
    for name in names:
        fields = getattr(found, "model_fields", {})
        if name not in fields:
            return None
        found = fields[name].annotation
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
