"""Tables of all settings, from the classes that check them: name, type, default, meaning."""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from las.config import RunConfig, SearchConfig
from las.lm.config import LMConfig

KINDS: dict[str, type[BaseModel]] = {"run": RunConfig, "search": SearchConfig, "lm": LMConfig}
_MARK = re.compile(r"^<!-- settings (\w+)(?: (\S+))? -->$", re.MULTILINE)
_HEADER = "| setting | type | default | meaning |\n|---|---|---|---|"


def filled(text: str) -> str:
    """A document whose marks ``<!-- settings KIND [SECTION] -->`` are replaced by tables.

    KIND is a key of :data:`KINDS`; SECTION a dotted name, without which the settings of no section
    are listed.
    """
    return _MARK.sub(lambda mark: table(KINDS[mark[1]], mark[2] or ""), text)


def table(kind: type[BaseModel], section: str = "") -> str:
    """The settings of one section as a table."""
    lines = [
        f"| `{name}` | {type_} | {default} | {meaning} |".replace("  ", " ")
        for name, type_, default, meaning in rows(kind)
        if name.rpartition(".")[0] == section
    ]
    if not lines:
        raise ValueError(f"{kind.__name__} has no section {section!r}")
    return "\n".join([_HEADER, *lines])


def rows(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Dotted name, type, default and meaning of every setting; meanings may be empty."""
    schema = kind.model_json_schema()
    said = meanings(kind)
    for name, field in kind.model_fields.items():
        section = _section(field.annotation)
        optional = section is not None and field.annotation is not section
        if section is None or optional:
            what = "section, or null" if optional else _type(schema["properties"][name])
            default = "on" if optional and field.default is not None else _value(field.default)
            yield prefix + name, what, default, said.get(name, "").replace("|", r"\|")
        if section is not None:
            yield from rows(section, f"{prefix}{name}.")


def meanings(kind: type[BaseModel]) -> dict[str, str]:
    """What is written down of each field: its docstring, else the comments beside or above it."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        source = textwrap.dedent(inspect.getsource(base))
        lines = source.splitlines()
        (body,) = ast.parse(source).body
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = _docstring(after) or _comments(lines, node)
    return found


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def _comments(lines: list[str], node: ast.AnnAssign) -> str:
    assert node.end_lineno is not None and node.end_col_offset is not None
    above = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        above.append(line.strip().lstrip("# "))
    beside = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    return " ".join([*reversed(above), beside.strip().lstrip("# ")]).strip()


def _section(annotation: Any) -> type[BaseModel] | None:
    for option in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(_value(value) for value in schema["enum"])
    name = {"boolean": "true or false", "string": "text", "null": "null"}.get(schema["type"])
    if name is not None:
        return name
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['type']}, {schema['minimum']:g} to {schema['maximum']:g}"
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in {
            "minimum": "≥",
            "exclusiveMinimum": ">",
            "maximum": "≤",
            "exclusiveMaximum": "<",
        }.items()
        if key in schema
    ]
    return " ".join([schema["type"], ", ".join(bounds)]).strip()


def _value(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[\w/.-]+", value)
    return f"`{value if plain else json.dumps(value)}`"
