"""Many files through one Transcriber: a failure stays with its file, and progress is shown."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from las import standard
from las.errors import shown

if TYPE_CHECKING:
    from rich.progress import Progress

    from las.transcription.transcriber import Failure, Transcriber, Transcript

# What libraries raise; other errors are the program's own, and are not to be taken for a file's.
OF_A_FILE = (RuntimeError, MemoryError, OSError, ValueError)
_ALONE = 32  # files that are taken one by one after a batch has failed


class Report:
    """What is said on standard error: a bar on a terminal, errors, and a summary.

    Args:
        bar: whether to draw one, if standard error is a terminal.
    """

    def __init__(self, bar: bool) -> None:
        self.files = 0
        self.done = self.failed = self.skipped = 0
        self.seconds = 0.0  # of audio
        self._start = time.perf_counter()
        self._earlier = 0.0  # seconds of audio of the calls before this one
        self._bar = _bar() if bar and sys.stderr.isatty() else None

    def __enter__(self) -> "Report":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, files: int) -> None:
        """So many files there are."""
        self.files = files
        self._show(total=files)

    def begin(self) -> None:
        """The model is there: time is measured from now."""
        self._start = time.perf_counter()

    def heard(self, seconds: float) -> None:
        """So much audio of the current call of the Transcriber is done."""
        self.seconds = self._earlier + seconds
        self._show(speed=self._speed())

    def settle(self) -> None:
        """A call of the Transcriber is over: the next counts from 0 again."""
        self._earlier = self.seconds

    def finished(self) -> None:
        """A file is done."""
        self.done += 1
        self._show(advance=1)

    def skip(self, files: int) -> None:
        """Files that need not be done."""
        self.skipped += files
        self._show(advance=files)

    def error(self, reason: str) -> None:
        """A file failed, or what was named gave none."""
        self.failed += 1
        self._show(advance=1)
        self.say(f"error: {reason}")

    def say(self, line: str) -> None:
        """Print a line on standard error."""
        if self._bar is None:
            standard.complain(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def summary(self) -> str:
        """One line: files, audio, time, speed; what failed and what was skipped."""
        line = f"{self.done} file{'' if self.done == 1 else 's'}"
        line += f", {self._speed()}" if self.done else ""
        line += f"; {self.skipped} skipped" if self.skipped else ""
        return line + (f"; {self.failed} failed" if self.failed else "")

    def _show(self, **changes: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], **changes)

    def _speed(self) -> str:
        passed = time.perf_counter() - self._start
        return (
            f"{_duration(self.seconds)} of audio in {_duration(passed)}, "
            f"{self.seconds / max(passed, 1e-3):.3g}x real time"
        )


def _bar() -> "Progress":
    # Imported where a bar is drawn: it takes as long as parsing the command line.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    bar = Progress(
        TextColumn("transcribing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.add_task("", total=None, speed="")
    return bar


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def transcripts(
    transcriber: "Transcriber", paths: Sequence[Path], batch_size: int | None, report: Report
) -> "Iterator[Transcript | Failure]":
    """Transcribe files, in their order; what decoding raises becomes the failure of one file.

    Memory that runs out, or an error in a library, ends a batch without saying which file is to
    blame: the next files are then taken one by one until it is found.

    Args:
        transcriber: does it.
        paths: the files.
        batch_size: windows that are decoded at once, at most; None leaves it to the Transcriber.
        report: is told of the progress.
    """
    from las.transcription.transcriber import Failure

    start = alone = 0
    while start < len(paths):
        part = paths[start : start + 1] if alone else paths[start:]
        found = transcriber.files(part, batch_size=batch_size, progress=report.heard)
        try:
            for result in found:
                start += 1
                yield result
            alone = max(0, alone - 1)
        except OF_A_FILE as error:
            if len(part) == 1:
                yield Failure(part[0], _reason(part[0], error))
                start += 1
                alone = 0
            else:
                alone = _ALONE
        report.settle()


def _reason(path: Path, error: Exception) -> str:
    message = " ".join(str(error).split())
    short = message[:200] + "..." * (len(message) > 200)
    if isinstance(error, MemoryError) or "out of memory" in message:
        what = f"not enough memory to decode it ({short or type(error).__name__})"
        return f"{shown(path)}: {what}; free some, or cut the file into shorter ones"
    return (
        f"{shown(path)}: decoding failed ({type(error).__name__}: {short}); try it alone with "
        "--device cpu, or convert it to wav"
    )
