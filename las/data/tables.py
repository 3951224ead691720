"""Rows of CSV, TSV and JSONL files with their line numbers.

CSV has quotes (RFC 4180), TSV has none (as in the files of Common Voice), and a line of JSONL is a
JSON object.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from las.errors import LASError

SUFFIXES = (".csv", ".tsv", ".jsonl")


def rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a table.

    Args:
        path: a file with a suffix in :data:`SUFFIXES`, which determines the format.
        needed: columns that each row must have; the first must not be empty.

    Yields:
        number of the row's first line, and its columns.

    Raises:
        LASError: the file or a row cannot be read; the message names the line.
    """
    kind = path.suffix.lower()
    if kind == ".jsonl":
        found = _json_rows(path)
    else:
        found = _named(path, _csv_rows(path) if kind == ".csv" else _tsv_rows(path), needed)
    for number, row in found:
        if not row.get(needed[0]) or any(row.get(name) is None for name in needed):
            raise LASError(f"{path}: line {number} lacks {_quoted(needed)}")
        yield number, row


def tsv(path: Path) -> Iterator[tuple[int, list[str] | str]]:
    """The fields of each line of a TSV file that is not empty, or why it cannot be read.

    Raises:
        LASError: the file cannot be opened.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, line.removesuffix(b"\r").decode().split("\t")
            except UnicodeDecodeError:
                yield number, "not UTF-8 text"


def read(path: Path) -> str:
    """Read a text file; line ends become a line feed.

    Raises:
        LASError: it cannot be read, or is not UTF-8; the message names the line.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LASError(f"{path}: not UTF-8 text (line {line})") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> LASError:
    return LASError(f"{path}: cannot read ({error.strerror})")


def _named(
    path: Path, found: Iterator[tuple[int, list[str]]], needed: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows as dictionaries, by the names in the header."""
    _, header = next(found, (0, []))
    if not set(needed) <= set(header):
        cure = ""
        if {"client_id", "path", "sentence"} <= set(header):
            cure = "; for Common Voice write `las prepare commonvoice`"
        raise LASError(f"{path}: the header lacks {_quoted(needed)}: it is {header}{cure}")
    for number, fields in found:
        if len(fields) > len(header):  # a comma in the text
            cure = (
                "put a text with a comma in double quotes"
                if path.suffix.lower() == ".csv"
                else "a text in it cannot hold a tab"
            )
            raise LASError(f"{path}: line {number} has more fields than the header; {cure}")
        yield number, dict(zip(header, fields, strict=False))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(read(path)), strict=True)
    number = 1
    try:
        for fields in reader:
            if fields:
                yield number, fields
            number = reader.line_num + 1
    except csv.Error as error:
        raise LASError(f"{path}: the row of line {number} is malformed ({error})") from None


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, fields in tsv(path):
        if isinstance(fields, str):
            raise LASError(f"{path}: line {number} is {fields}")
        yield number, fields


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise LASError(f"{path}: line {number} is not JSON ({reason})") from None
        if not isinstance(row, dict):
            raise LASError(f"{path}: line {number} is not a JSON object")
        texts = {}
        for key, value in row.items():
            if isinstance(value, str | int | float):
                texts[key] = str(value)
            elif value is not None and key in ("audio", "text", "id", "speaker"):
                raise LASError(f"{path}: `{key}` in line {number} is neither text nor a number")
        yield number, texts


def _quoted(names: Sequence[str]) -> str:
    return " or ".join(f"`{name}`" for name in names)
