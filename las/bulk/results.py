"""What comes of a block: rows of results, and of errors."""

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class Result:
    """What came of a block."""

    rows: list[Row] = field(default_factory=list)  # in the order of the block, as are the errors
    errors: list[Row] = field(default_factory=list)
    seconds: float = 0.0  # of audio
    took: float = 0.0  # seconds

    def add(self, other: "Result") -> None:
        """Append another block's."""
        self.rows += other.rows
        self.errors += other.errors
        self.seconds += other.seconds
        self.took += other.took


def error_row(path: str, id: str | None, reason: str) -> Row:
    """A row of the errors."""
    return {"path": storable(path), "id": id, "error": storable(reason)}


def storable(name: str) -> str:
    """A name as a table can hold it: names of files may be any bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
