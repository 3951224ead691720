"""Training logs: progress bar or lines, ``log.jsonl``, ``train.log``, TensorBoard.

Only the first process writes. ``log.jsonl`` has one object for each step or validation. Resuming
removes the rows after the checkpoint, so that each step is there once.
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
from las.storage.atomic import attribute_errors
from las.storage.logs import timestamped, truncate_rows
from las.training.validation import Validation

_LINE_SECONDS = 30.0  # between lines of progress where there is no terminal


class TrainingLogger:
    """Writes the logs of a run; a context manager around the loop.

    Args:
        folder: of the run.
        config: of the run.
        rank: of this process; all but 0 write nothing.
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
        self.shortages = 0
        self.began = self.last_line = self.last_step = time.monotonic()
        self.smooth: dict[str, float] = {}

    def __enter__(self) -> "TrainingLogger":
        if self.silent:
            return self
        # Imported here, as it takes a second.
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
            if error is not None:  # report a full disk once
                stack.enter_context(contextlib.suppress(OSError))
            stack.callback(setattr, threading, "excepthook", self.before)
            for file, name in ((self.steps, "log.jsonl"), (self.log, "train.log")):
                stack.enter_context(self._attribute_errors(name))
                stack.callback(file.close)
            stack.enter_context(self._attribute_errors("tensorboard"))
            stack.callback(self.writer.close)
            if self.progress is not None:
                self.progress.stop()

    def truncate(self, step: int, epoch: int) -> None:
        """Remove what was logged after a checkpoint.

        Args:
            step: of the checkpoint; later rows are removed.
            epoch: complete epochs; later validations are removed. If the training stopped between
                a validation and its checkpoint, that validation is repeated.
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
            if "input_wait" in row:  # a step: restores the smoothed values
                self._smooth(row)
        self.steps = path.open("a", encoding="utf-8")

    def info(self, line: str) -> None:
        """Print a line and write it to ``train.log``, with date and time."""
        if self.silent:
            return
        stamped = timestamped(line)
        with self._attribute_errors("train.log"):
            self.log.write(stamped + "\n")
            self.log.flush()
        self.console.print(stamped, markup=False, highlight=False, soft_wrap=True)

    def warning(self, line: str) -> None:
        """A line marked as a warning."""
        self.info(f"WARNING: {line}")

    def shortage(self, step: int, halved: int, left_out: int) -> None:
        """Warn that batches did not fit into memory: the first, second, fourth, eighth time ...

        Args:
            step: number of the step.
            halved: batches, or parts of them, that were divided.
            left_out: utterances that did not fit alone.
        """
        if not halved + left_out:
            return
        self.shortages += 1
        if self.shortages & (self.shortages - 1):
            return
        without = f"; {left_out} utterances that do not fit alone were left out" * (left_out > 0)
        self.warning(
            f"step {step}: out of memory: {halved} batches or parts of them were computed in "
            f"halves{without}; steps like this so far: {self.shortages}; a smaller "
            "data.batch_seconds or data.max_seconds avoids it"
        )

    def input_waited(self, seconds: float) -> None:
        """Add seconds that the loop has waited for a batch."""
        self.waiting += seconds

    def step(self, *, step: int, epoch: int, share: float, **values: float) -> None:
        """Log an optimizer step; ``share`` is the part of the epoch that is done."""
        if self.silent:
            return
        now = time.monotonic()
        wait = self.waiting / max(1e-9, now - self.last_step)
        self.last_step, self.waiting = now, 0.0
        self._smooth({**values, "input_wait": wait})
        self._write({"step": step, "epoch": epoch, **values, "input_wait": wait})
        with self._attribute_errors("tensorboard"):
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
        """Log the measures on the dev set after an epoch; epoch 0 is before the first step."""
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
        with self._attribute_errors("tensorboard"):
            for name, value in values.items():
                self.writer.add_scalar(f"dev/{name}", value, step)
            if result.picture is not None:
                from las.evaluation import plots  # slow to import (matplotlib, librosa)

                figure = plots.attention(
                    result.picture.waveform.numpy(),
                    result.picture.alignment.numpy(),
                    result.picture.text,
                    self.config.frontend,
                )
                self.writer.add_figure("dev/attention", figure, step)
            self.writer.flush()

    def _write(self, values: dict[str, Any]) -> None:
        with self._attribute_errors("log.jsonl"):
            self.steps.write(json.dumps(values) + "\n")
            self.steps.flush()

    def _attribute_errors(self, name: str) -> contextlib.AbstractContextManager[None]:
        return attribute_errors(self.folder / name)

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """Do not print an OSError of TensorBoard's thread: the next write raises it."""
        if not isinstance(failure.exc_value, OSError):
            self.before(failure)
