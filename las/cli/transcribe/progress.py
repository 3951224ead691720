"""Progress of a run on standard error: a bar on a terminal, warnings, errors, and a summary.

It is told of the plan and of each result, and decides nothing.
"""

import sys
import time
from typing import TYPE_CHECKING, Any

from las import standard_streams
from las.cli.transcribe.inputs import Source
from las.cli.transcribe.plan import Plan

if TYPE_CHECKING:
    from rich import progress as rich_progress

    from las.transcription.transcript import Failure, Transcript


class Progress:
    """Counts files and audio, and tells the user of them.

    Args:
        bar: whether to draw a bar, if standard error is a terminal.
    """

    def __init__(self, bar: bool) -> None:
        self.files = 0
        self.done = self.failed = self.skipped = 0
        self.seconds = 0.0  # of audio
        self._start = time.perf_counter()
        self._bar = _bar() if bar and sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def planned(self, plan: Plan) -> None:
        """The plan is made: tell what the inputs hold beside audio, and what is wrong with them."""
        self.files, self.skipped = plan.files, len(plan.skipped)
        self._show(total=self.files, advance=self.skipped)
        for note in plan.notes:
            self._say(note)
        for error in plan.errors:
            self._fail(str(error))

    def started(self, earlier: float = 0.0) -> None:
        """The model is loaded: time is measured from now on, or from so many seconds earlier."""
        self._start = time.perf_counter() - earlier

    def audio(self, seconds: float) -> None:
        """So much audio is done, of all files together."""
        self.seconds = seconds
        self._show(speed=self._speed())

    def recognised(self, source: Source, result: "Transcript | Failure") -> None:
        """A file is transcribed, or has failed."""
        from las.transcription.transcript import Failure

        if isinstance(result, Failure):
            self._fail(result.reason)
            return
        for warning in result.warnings:
            self._say(f"warning: {source.column}: {warning}")

    def written(self, failure: "Failure | None") -> None:
        """The result of a file is written, or that failed."""
        if failure is not None:
            self._fail(failure.reason)
            return
        self.done += 1
        self._show(advance=1)

    def interrupted(self, resumable: bool) -> None:
        """The user ends the run."""
        cure = "; --resume continues with the others" if resumable else ""
        self._say(f"interrupted: {self.done} of {self.files} files are done{cure}")

    def finished(self) -> None:
        """All is done: print the summary."""
        self._say(self.summary())

    def summary(self) -> str:
        """One line: files, audio, time, speed; what failed and what was skipped."""
        line = f"{self.done} file{'' if self.done == 1 else 's'}"
        line += f", {self._speed()}" if self.done else ""
        line += f"; {self._skipped()}" if self.skipped else ""
        return line + (f"; {self.failed} failed" if self.failed else "")

    def _skipped(self) -> str:
        return f"{self.skipped} skipped"

    def _fail(self, reason: str) -> None:
        self.failed += 1
        self._show(advance=1)
        self._say(f"error: {reason}")

    def _say(self, line: str) -> None:
        if self._bar is None:
            standard_streams.complain(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _show(self, **changes: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], **changes)

    def _speed(self) -> str:
        passed = time.perf_counter() - self._start
        return (
            f"{_duration(self.seconds)} of audio in {_duration(passed)}, "
            f"{self.seconds / max(passed, 1e-3):.3g}x real time"
        )


def _bar() -> "rich_progress.Progress":
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
