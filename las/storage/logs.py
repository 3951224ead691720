"""Log files of a training: lines with the time of day, and JSON rows that a resume truncates."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from las.storage.atomic import replacing


def timestamped(line: str) -> str:
    """A line of ``train.log``: date and time (UTC) before the text."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z  {line}"


def truncate_rows(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Remove rows of a JSON-lines file that are not wanted, and lines that were cut off.

    Args:
        path: of the file; a missing one counts as empty.
        wanted: whether a row stays.

    Returns:
        the rows that stay.
    """
    lines, rows = [], []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the process was killed while it wrote
            continue
        if wanted(row):
            lines.append(line + "\n")
            rows.append(row)
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    return rows
