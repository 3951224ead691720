"""The folder of a bulk transcription: settings, a part file for each block, and the errors.

A block is done when its part exists. Parts are written by one process, whole or not at all, so
that nothing is lost or doubled, however a run ends.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from las.bulk import tables
from las.bulk.blocks import Block, digest
from las.bulk.results import Result
from las.config import SearchConfig, Settings
from las.errors import LASError
from las.storage import settings_diff
from las.storage.atomic import check_folder, locked, remove_leftovers, replacing
from las.version import __version__

RUN = "run.json"
FORMAT = "las-bulk/1"
_CURE = "choose a new folder for --output"


class BulkSettings(Settings):
    """The settings that results depend on."""

    model: str = ""  # name of the folder, and a digest of its files
    lm: str = ""  # likewise; empty: none
    words: str = ""
    search: SearchConfig = SearchConfig()
    precision: str = "auto"
    word_timestamps: bool = False
    format: str = "jsonl"
    block_files: int = 64


def identity(folder: Path | None) -> str:
    """Name and contents of a model folder, as a value of a setting; empty for None."""
    if folder is None:
        return ""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".yaml", ".safetensors"):  # there may be reports beside them
            found.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return f"{folder.resolve().name} {found.hexdigest()[:16]}"


class BulkOutput:
    """Reads and writes the folder.

    Args:
        folder: the folder.
        settings: of this run.
        blocks: of this run.
    """

    def __init__(self, folder: Path, settings: BulkSettings, blocks: Sequence[Block]) -> None:
        self.folder, self.settings = folder, settings
        self.blocks = blocks
        self.digits = max(5, len(str(len(blocks) - 1)))

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Reserve the folder, and see to it that what is in it is of the same run.

        Raises:
            LASError: another process writes to it, or it has other results.
        """
        check_folder(self.folder)
        with locked(self.folder) as mine:
            if not mine:
                raise LASError(
                    f"{self.folder}: another `las transcribe-bulk` writes to this folder; wait for "
                    f"its end, or {_CURE}"
                )
            for suffix in (f".{self.settings.format}", Path(RUN).suffix):
                remove_leftovers(self.folder, suffix)
            self._begin()
            yield

    def pending(self) -> dict[int, Block]:
        """The blocks that are not done, by number."""
        return {
            index: block
            for index, block in enumerate(self.blocks)
            if not self._path("part", index).is_file()
        }

    def write(self, index: int, result: Result) -> None:
        """Write what came of a block.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
        """
        errors, part = self._path("errors", index), self._path("part", index)
        kind = self.settings.format
        if result.errors:
            with replacing(errors) as temporary:
                tables.write_errors(temporary, kind, result.errors)
        else:
            errors.unlink(missing_ok=True)  # of a run that was killed before it wrote the part
        with replacing(part) as temporary:  # the last: now the block is done
            tables.write_results(temporary, kind, result.rows, self.settings.word_timestamps)

    def failures(self) -> int:
        """The rows of all tables of errors."""
        kind = self.settings.format
        return sum(
            tables.FORMATS[kind].count(path) for path in self.folder.glob(f"errors-*.{kind}")
        )

    def _path(self, name: str, index: int) -> Path:
        return self.folder / f"{name}-{index:0{self.digits}d}.{self.settings.format}"

    def _begin(self) -> None:
        path = self.folder / RUN
        inputs = {"blocks": len(self.blocks), "sha256": digest(self.blocks)}
        if path.is_file():
            self._check(path, inputs)
            return
        if any(self.folder.glob("part-*")):
            raise LASError(
                f"{self.folder}: it has results, but no {RUN} that tells of what; {_CURE}"
            )
        record = {
            "format": FORMAT,
            "version": __version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "inputs": inputs,
            "settings": self.settings.model_dump(mode="json"),
        }
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def _check(self, path: Path, inputs: dict[str, Any]) -> None:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                raise ValueError("another format")
            changes = settings_diff.differences(self.settings, json.dumps(record["settings"]))
            before = record["inputs"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            line = " ".join(str(error).split())
            raise LASError(
                f"{path}: not a record of `las transcribe-bulk` ({type(error).__name__}: {line}); "
                f"{_CURE}"
            ) from None
        if changes:
            raise LASError(
                f"{path}: the results in this folder are of other settings "
                f"({settings_diff.shown(changes)}); use those, or {_CURE}"
            )
        if before != inputs:
            raise LASError(
                f"{path}: the results in this folder are of other inputs ({before['blocks']} "
                f"blocks, now {inputs['blocks']}); name the same again, or {_CURE}"
            )
