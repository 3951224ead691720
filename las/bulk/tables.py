"""Rows -> files of a table: JSON lines, or Parquet with a schema that is the same in every part."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from las.bulk.results import Row

_WORD = pa.struct(
    [
        ("word", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("probability", pa.float64()),
    ]
)
_ERRORS = pa.schema([("path", pa.string()), ("id", pa.string()), ("error", pa.string())])


def schema(word_timestamps: bool) -> pa.Schema:
    """The columns of results; those of segments are whisper's."""
    segment = [
        ("id", pa.int32()),
        ("seek", pa.int64()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("text", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("temperature", pa.float64()),
        ("avg_logprob", pa.float64()),
        ("compression_ratio", pa.float64()),
    ]
    if word_timestamps:
        segment.append(("words", pa.list_(_WORD)))
    return pa.schema(
        [
            ("path", pa.string()),
            ("id", pa.string()),
            ("text", pa.string()),
            ("segments", pa.list_(pa.struct(segment))),
            ("language", pa.string()),
            ("duration", pa.float64()),
            ("confidence", pa.float64()),
            ("warnings", pa.list_(pa.string())),
        ]
    )


@dataclass(frozen=True)
class Table:
    """A format of tables."""

    write: Callable[[Path, Sequence[Row], pa.Schema], None]
    count: Callable[[Path], int]  # rows of a file


def _write_lines(path: Path, rows: Sequence[Row], _: pa.Schema) -> None:
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _write_parquet(path: Path, rows: Sequence[Row], columns: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=columns), path)


def _count_parquet(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


FORMATS = {
    "jsonl": Table(_write_lines, _count_lines),
    "parquet": Table(_write_parquet, _count_parquet),
}
"""The formats by name, which is the suffix of their files."""


def write_results(path: Path, kind: str, rows: Sequence[Row], word_timestamps: bool) -> None:
    """Write rows of results; see :class:`las.bulk.results.Result`."""
    FORMATS[kind].write(path, rows, schema(word_timestamps))


def write_errors(path: Path, kind: str, rows: Sequence[Row]) -> None:
    """Write rows of errors."""
    FORMATS[kind].write(path, rows, _ERRORS)
