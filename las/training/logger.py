"""What a training says of itself: progress bar or lines, ``log.jsonl``, ``train.log``, TensorBoard.

Only the first process writes. ``log.jsonl`` has one object a step or validation; on resuming,
what lies beyond the state that was resumed is cut off, so that each step stands there once.
"""

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from las.config import RunConfig
from las.storage.atomic import naming
from las.storage.logs import timestamped, truncate_rows
from las.training.validation import Validation

_LINE_SECONDS = 30.0  # between lines where there is no terminal for a bar


class TrainingLogger:
    """Context manager around the loop.

    Args:
        folder: of the run.
        config: the run; written to TensorBoard as text.
        rank: of this process; all but 0 are silent.
    """

    def __init__(self, folder: Path, config: RunConfig, rank: int) -> None:
        self.folder = folder
        self.config = config
        self.silent = rank != 0
        self.console = Console()
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.wer = float("nan")
        self.waiting = 0.0
        self.began = self.last_line = self.last_step = time.monotonic()
        self.smooth: dict[str, float] = {}

    def __enter__(self) -> "TrainingLogger":
        if self.silent:
            return self
        # Importing TensorBoard takes a second: not where nothing trains.
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(self.folder / "tensorboard"))
        self.before, threading.excepthook = threading.excepthook, self._thread_failed
        self.log = (self.folder / "train.log").open("a", encoding="utf-8")
        self.steps = (self.folder / "log.jsonl").open("a", encoding="utf-8")
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                TextColumn(
                    "loss {task.fields[loss]:.3f}  ctc {task.fields[ctc]:.3f}  "
                    "dev WER {task.fields[wer]:.1f} %  input wait {task.fields[wait]:.0f} %"
                ),
                TimeElapsedColumn(),
                console=self.console,
            )
            self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.silent:
            return
        with contextlib.ExitStack() as stack:
            if error is not None:  # that the disk is full, say, is raised only once
                stack.enter_context(contextlib.suppress(OSError))
            stack.callback(setattr, threading, "excepthook", self.before)
            for file, name in ((self.steps, "log.jsonl"), (self.log, "train.log")):
                stack.enter_context(self._naming(name))
                stack.callback(file.close)
            stack.enter_context(self._naming("tensorboard"))
            stack.callback(self.writer.close)
            if self.progress is not None:
                self.progress.stop()

    def truncate(self, step: int, epoch: int) -> None:
        """Drop what was logged after this step, and validations after this many epochs.

        The training goes on from there. A stop between a validation and the saving of the state
        leaves a validation of the step that is resumed: it will be made, and logged, again.
        """
        if self.silent:
            return
        path = self.folder / "log.jsonl"
        self.steps.close()
        self.smooth = {}
        rows = truncate_rows(
            path, lambda row: row["step"] <= step and ("dev" not in row or row["epoch"] <= epoch)
        )
        for row in rows:
            if "input_wait" in row:  # a step: the smoothed numbers go on from where they were
                self._smooth(row)
        self.steps = path.open("a", encoding="utf-8")

    def info(self, line: str) -> None:
        """One line for the user and the log, with the time of day."""
        if self.silent:
            return
        stamped = timestamped(line)
        with self._naming("train.log"):
            self.log.write(stamped + "\n")
            self.log.flush()
        self.console.print(stamped, markup=False, highlight=False, soft_wrap=True)

    def warning(self, line: str) -> None:
        """A line that should not be overlooked."""
        self.info(f"WARNING: {line}")

    def input_waited(self, seconds: float) -> None:
        """Time that the loop stood still for want of input."""
        self.waiting += seconds

    def step(self, *, step: int, epoch: int, share: float, **values: float) -> None:
        """An optimizer step."""
        if self.silent:
            return
        now = time.monotonic()
        wait = self.waiting / max(1e-9, now - self.last_step)
        self.last_step, self.waiting = now, 0.0
        self._smooth({**values, "input_wait": wait})
        self._write({"step": step, "epoch": epoch, **values, "input_wait": wait})
        with self._naming("tensorboard"):
            for name, value in {**values, "input_wait": wait}.items():
                self.writer.add_scalar(f"train/{name}", value, step)
        self._show(step, epoch, share, now)

    def _smooth(self, row: Mapping[str, float]) -> None:
        for name in ("attention", "ctc", "input_wait"):
            self.smooth[name] = 0.95 * self.smooth.get(name, row[name]) + 0.05 * row[name]

    def _show(self, step: int, epoch: int, share: float, now: float) -> None:
        loss, ctc, wait = (self.smooth[name] for name in ("attention", "ctc", "input_wait"))
        if self.progress is not None:
            fields: dict[str, Any] = {"epoch": epoch, "loss": loss, "ctc": ctc}
            fields |= {"wer": self.wer, "wait": 100 * wait}
            if self.task is None:
                self.task = self.progress.add_task("", total=1.0, **fields)
            self.progress.update(self.task, completed=share, **fields)
        elif now - self.last_line > _LINE_SECONDS:
            self.last_line = now
            self.info(
                f"epoch {epoch} {100 * share:3.0f} %  step {step}  loss {loss:.3f}  "
                f"ctc {ctc:.3f}  input wait {100 * wait:.0f} %"
            )

    def validation(self, epoch: int, step: int, result: Validation) -> None:
        """The dev set after an epoch; epoch 0 is before the first step."""
        if self.silent:
            return
        self.wer = result.score.wer
        values = {
            "wer": result.score.wer,
            "cer": result.score.cer,
            "attention": result.attention_loss,
            "ctc": result.ctc_loss,
            "focus": result.focus,
        }
        trained = f"train loss {self.smooth['attention']:.3f}, " if self.smooth else ""
        what = "dev" if result.picture is not None else "dev, by CTC,"
        self.info(
            f"epoch {epoch}: {what} WER {result.score.wer:.2f} %  "
            f"CER {result.score.cer:.2f} %  "
            f"loss {result.attention_loss:.3f}  ctc {result.ctc_loss:.3f}  "
            f"focus {result.focus:.2f}  "
            f"({trained}{(time.monotonic() - self.began) / 60:.1f} min)"
        )
        self._write({"step": step, "epoch": epoch, "dev": values})
        with self._naming("tensorboard"):
            for name, value in values.items():
                self.writer.add_scalar(f"dev/{name}", value, step)
            if result.picture is not None:
                from las.evaluation import (
                    plots,  # matplotlib, and inside librosa: not before the first epoch
                )

                figure = plots.attention(
                    result.picture.waveform.numpy(),
                    result.picture.alignment.numpy(),
                    result.picture.text,
                    self.config.frontend,
                )
                self.writer.add_figure("dev/attention", figure, step)
            self.writer.flush()

    def _write(self, values: dict[str, Any]) -> None:
        with self._naming("log.jsonl"):
            self.steps.write(json.dumps(values) + "\n")
            self.steps.flush()

    def _naming(self, name: str) -> contextlib.AbstractContextManager[None]:
        return naming(self.folder / name)

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread gives its error to who writes next, and need not print it."""
        if not isinstance(failure.exc_value, OSError):
            self.before(failure)
