"""One-line messages for invalid settings, with the setting that was probably meant."""

import difflib
import types
import typing
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError


def overridden(error: ValidationError, overrides: Sequence[str]) -> bool:
    """Whether the first error is about a value that was given on the command line."""
    where = [str(part) for part in error.errors()[0]["loc"]]
    keys = [override.partition("=")[0].strip().split(".") for override in overrides]
    # The error may be about a section and the override about a setting in it, or the reverse.
    return bool(where) and any(
        all(a == b for a, b in zip(where, key, strict=False)) for key in keys
    )


def explain(kind: type[BaseModel], error: ValidationError) -> str:
    """One line for the first error, and how many more there are."""
    errors = error.errors()
    location = [str(part) for part in errors[0]["loc"]]
    where = ".".join(location)
    value = errors[0].get("input")
    if errors[0]["type"] == "extra_forbidden":
        known = setting_names(kind)
        text = f"unknown setting `{where}`"
        close = _suggestions(known, location)
        if close:
            text += f": did you mean {' or '.join(f'`{key}`' for key in close)}?"
        else:
            text += f"; known here: {', '.join(_siblings(known, location[:-1]))}"
    elif errors[0]["type"] == "model_type":
        first = next((k for k in setting_names(kind) if k.startswith(f"{where}.")), where)
        text = f"`{where}` is a section: give its settings one by one, as `{first}`{_shown(value)}"
    else:
        message = errors[0]["msg"].removeprefix("Value error, ")
        text = f"`{where}`: {message}" if where else message
        text += _shown(value)
    more = len(errors) - 1
    return text + (f" (and {more} more)" if more else "")


def _shown(value: object) -> str:
    if value is None:
        return " (it is empty)"
    return f" (it is {value!r})" if isinstance(value, str | int | float | bool) else ""


def setting_names(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted names of all settings below a section, sections included."""
    keys = []
    for name, field in kind.model_fields.items():
        keys.append(prefix + name)
        annotation = field.annotation
        options = (
            typing.get_args(annotation)
            if isinstance(annotation, types.UnionType)
            else (annotation,)
        )
        for option in options:
            if isinstance(option, type) and issubclass(option, BaseModel):
                keys += setting_names(option, f"{prefix}{name}.")
    return keys


def _suggestions(known: list[str], location: list[str]) -> list[str]:
    """Settings that an unknown key may mean: similar names in its section, else elsewhere."""
    *section, name = location
    here = {_name(key): key for key in _siblings(known, section)}
    everywhere = [_name(key) for key in known]
    if name not in everywhere:
        if close := _close(name, list(here), 0.6):
            return [here[found] for found in close]
        close = _close(name, everywhere, 0.65)
        return [key for key in known if _name(key) in close]
    return [key for key in known if _name(key) == name]


def _close(name: str, names: Sequence[str], cutoff: float) -> list[str]:
    """Names whose initials (``lr``), similar spelling or single word this name is."""
    name = name.lower().replace("-", "_")
    initials = [n for n in names if "_" in n and "".join(w[:1] for w in n.split("_")) == name]
    return (
        initials
        or difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
        or [n for n in names if name in n.split("_")]
    )


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def _siblings(known: list[str], section: list[str]) -> list[str]:
    prefix = "".join(part + "." for part in section)
    return [k for k in known if k.startswith(prefix) and "." not in k[len(prefix) :]]
