"""The command ``las transcribe-bulk``: find inputs -> blocks -> workers -> part files.

`las.bulk` does the work. It needs Ray, so it is imported when the command runs.
"""

import glob
import os
from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from las.cli.interrupts import exit_status, sigterm_interrupts
from las.cli.loading import chosen_search, load_model
from las.cli.options import (
    BeamOption,
    CTCOption,
    Device,
    DeviceOption,
    GreedyOption,
    LMOption,
    LMWeightOption,
    Precision,
    PrecisionOption,
    SearchOption,
    WordsOption,
)
from las.cli.transcribe.inputs import STDIN, Source, find
from las.cli.transcribe.progress import Progress
from las.errors import LASError, shown
from las.imports import frozen_imports

if TYPE_CHECKING:
    from las.bulk.blocks import Block
    from las.bulk.results import Result


class Kind(StrEnum):
    """Format of the tables."""

    JSONL = "jsonl"
    PARQUET = "parquet"


def transcribe_bulk(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Audio files, folders (with subfolders), globs in quotes, manifests "
            "(.jsonl.gz of `las prepare`), or folders of shards (lhotse Shar).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables.")],
    kind: Annotated[
        Kind, typer.Option("--format", "-f", help="Format of the tables.")
    ] = Kind.JSONL,
    model: Annotated[
        Path | None, typer.Option(help="Model folder. Default: the bundled model.")
    ] = None,
    word_timestamps: Annotated[
        bool,
        typer.Option("--word-timestamps", help="Add words with times and probabilities."),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes, each with a model and one thread. Default: one for each GPU, or for "
            "each core where there are none.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster, such as auto or HOST:6379. Default: this machine alone."),
    ] = None,
    block_files: Annotated[
        int, typer.Option(min=1, help="Files in a block, which is a part of the table.")
    ] = 64,
    device: DeviceOption = Device.AUTO,
    precision: PrecisionOption = Precision.AUTO,
    beam: BeamOption = None,
    ctc: CTCOption = None,
    lm: LMOption = None,
    lm_weight: LMWeightOption = None,
    words: WordsOption = None,
    search: SearchOption = None,
    greedy: GreedyOption = False,
) -> None:
    """Transcribe many files with several processes or machines, to a table.

    The output folder gets part-00000.jsonl (or .parquet), ..., one for each
    block of files, and errors-*.jsonl with the files that could not be
    transcribed and why; then the exit status is 1. The texts are those of
    `las transcribe`.

    The same command again continues a run that was interrupted or killed:
    blocks whose parts exist are skipped. Other inputs or settings need
    another output folder.
    """
    from las.bulk.workers import pool, ray_running  # first: what is missing is missing
    from las.storage.atomic import check_folder

    if STDIN in inputs:
        raise LASError("-: standard input is no bulk; name files, or use `las transcribe -`")
    check_folder(output)
    notes: list[str] = []
    errors: list[LASError] = []
    blocks = _blocks(inputs, block_files, notes, errors)
    progress = _BulkProgress()
    if not blocks:  # the folder stays free for other inputs
        progress.begin(0, 0, notes, errors)
        raise typer.Exit(1)
    with frozen_imports():
        from torch.cuda import device_count

        from las.bulk.output import BulkOutput, BulkSettings, identity
        from las.bulk.recognition import Recogniser, Settings
        from las.bulk.run import run
        from las.decoding.presets import load_both
        from las.model.folder import bundled

    folder = (model or bundled()).absolute()
    # Loaded here, too: what is wrong with it is known before anything is started.
    las, torch_device = load_model(folder, Device.CPU, 1, precision)
    options = {"beam": beam, "ctc": ctc, "lm_weight": lm_weight}
    config, lm, words = chosen_search(folder, lm, search, words=words, greedy=greedy, **options)
    load_both(lm, words, las.text, torch_device)
    del las
    settings = Settings(
        None if model is None else folder,
        _within(folder, lm),
        _within(folder, words),
        config,
        precision.value,
        word_timestamps,
    )
    record = BulkSettings(
        model=identity(folder),
        lm=identity(lm),
        words=identity(words),
        search=config,
        precision=precision.value,
        word_timestamps=word_timestamps,
        format=kind.value,
        block_files=block_files,
    )
    table = BulkOutput(output, record, blocks)
    gpus = 0 if device == Device.CPU else device_count()
    with progress, table.reserved():
        left = len(table.pending())
        progress.begin(len(blocks), len(blocks) - left, notes, errors)
        try:
            if left:
                with ray_running(address, workers, gpus), sigterm_interrupts():
                    make = partial(Recogniser, settings)
                    for result in run(table, make, pool(workers, device.value)):
                        progress.block(result)
        except KeyboardInterrupt as interrupt:
            progress.interrupted(resumable=True)
            raise typer.Exit(exit_status(interrupt)) from None
    failures = table.failures()
    if earlier := failures - (progress.failed - len(errors)):
        progress.earlier(earlier, f"{output}/errors-*.{kind.value}")
    progress.finished()
    if errors or failures:
        raise typer.Exit(1)


def _blocks(
    inputs: Iterable[str], size: int, notes: list[str], errors: list[LASError]
) -> "list[Block]":
    """The blocks of all inputs: files, then manifests and shards.

    Raises:
        LASError: a manifest cannot be read.
    """
    from las.bulk import blocks

    audio: list[Path] = []
    manifests: dict[str, Path] = {}

    def add(manifest: Path) -> None:
        manifests.setdefault(os.path.realpath(manifest), manifest)

    rest = []
    for name in inputs:
        names = [name] if os.path.lexists(name) else glob.glob(name)  # noqa: PTH207
        folders = map(Path, names)
        shards = [shard for one in folders if one.is_dir() for shard in blocks.shards(one)]
        for shard in shards:
            add(shard)
        if not shards:
            rest.append(name)
    for found in find(rest, notes.append):
        if isinstance(found, Source):
            is_manifest = found.path.name.endswith(blocks.MANIFESTS)
            (add if is_manifest else audio.append)(found.path)
        else:
            errors.append(found)
    if not audio:  # perhaps a folder of manifests was named, whose suffix is not one of audio
        for below in filter(None, (blocks.named_below(Path(name)) for name in rest)):
            notes.append(f"{shown(below)}: named itself, it is transcribed")
    made: list[Block] = [*blocks.of_files(audio, size)]
    for manifest in sorted(manifests.values(), key=os.fsencode):
        made += blocks.of_manifest(manifest, size)
    return made


def _within(folder: Path, other: Path | None) -> Path | None:
    """A folder, relative to the model folder if it is in it: machines may have that elsewhere."""
    if other is None:
        return None
    other = other.absolute()
    return other.relative_to(folder) if other.is_relative_to(folder) else other


class _BulkProgress(Progress):
    """Progress in blocks."""

    def __init__(self) -> None:
        super().__init__(bar=True)
        self.blocks = 0  # done by this run

    def begin(
        self, blocks: int, skipped: int, notes: Iterable[str], errors: Iterable[LASError]
    ) -> None:
        """The plan is made: tell what the inputs hold beside audio, and what is wrong with them."""
        self.files, self.skipped = blocks, skipped
        self._show(total=blocks, advance=skipped)
        for note in notes:
            self._say(note)
        for error in errors:
            self.failed += 1
            self._say(f"error: {error}")

    def block(self, result: "Result") -> None:
        """A block is done and written."""
        if not self.blocks:
            self.started(result.took)  # the workers were ready then
        self.blocks += 1
        self.done += len(result.rows)
        for row in result.errors:
            self.failed += 1
            self._say(f"error: {row['error']}")
        for row in result.rows:
            for warning in row["warnings"]:
                self._say(f"warning: {row['path']}: {warning}")
        self._show(advance=1)
        self.audio(self.seconds + result.seconds)

    def interrupted(self, resumable: bool) -> None:
        """The user ends the run."""
        done = self.blocks + self.skipped
        cure = "; the same command continues with the others" if resumable else ""
        self._say(f"interrupted: {done} of {self.files} blocks are done{cure}")

    def earlier(self, count: int, tables: str) -> None:
        """So many files have failed in the runs that this one continues."""
        files = f"{count} file{'' if count == 1 else 's'}"
        self._say(f"{files} failed before and are not tried again: see {tables}")

    def _skipped(self) -> str:
        return f"{self.skipped} block{'' if self.skipped == 1 else 's'} skipped"
