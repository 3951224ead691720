"""The process in which fuzz_audio.py calls the command, one damaged file at a time."""

import multiprocessing
import os
import resource
import shutil
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

WATCHDOG = 20.0  # seconds a file may take
MEMORY = 2 << 30  # bytes of address space that a file may take on top of the model's


@dataclass(frozen=True)
class Case:
    """A damaged file."""

    number: int
    container: str
    mutations: list[str]
    path: Path

    @property
    def writes(self) -> bool:
        """Whether the command is to write files."""
        return self.number % 2 == 1


@dataclass(frozen=True)
class Result:
    """What the command did with it."""

    status: int | None  # None: it did not come back
    out: str = ""
    err: str = ""
    files: dict[str, str] = field(default_factory=dict)  # what it wrote, by name
    seconds: float = 0.0
    peak: int = 0  # bytes resident at most, so far


def write_model(folder: Path) -> None:
    """A model with random weights that answers within milliseconds."""
    import torch

    from las.config import (
        AttentionConfig,
        FrontendConfig,
        ListenerConfig,
        ModelConfig,
        SpellerConfig,
    )
    from las.model.las import LAS

    torch.manual_seed(0)
    config = ModelConfig(
        frontend=FrontendConfig(n_mels=20),
        listener=ListenerConfig(layers=1, width=16, reduction=4, stack=4),
        attention=AttentionConfig(kind="dot", width=16),
        speller=SpellerConfig(layers=1, width=16, embedding=8),
    )
    LAS(config).save_pretrained(folder)


def arguments(model: Path, files: list[Path], output: Path | None = None) -> list[str]:
    """The command line; it prints unless there is a folder for its output."""
    to = [] if output is None else ["--output-dir", str(output), "--word-timestamps"]
    return ["transcribe", *map(str, files), "--model", str(model), "--device", "cpu", *to]


def written(folder: Path) -> dict[str, str]:
    """Every file below a folder and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes().decode(errors="replace")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def worker(pipe: Connection, model: Path, folder: Path) -> None:
    """Run the command for every path received; standard output and error go to files."""
    import warnings

    import torch

    from las.cli import main
    from las.transcription import transcriber as transcribe  # noqa: F401  # what the command imports is not the file's

    torch.set_num_threads(1)
    warnings.simplefilter("always")  # a warning that is shown once would be seen once
    os.environ["COLUMNS"] = "10000"
    streams = []
    for number in (1, 2):
        stream = (folder / f"stream{number}").open("w+b")
        os.dup2(stream.fileno(), number)
        os.set_inheritable(number, True)
        streams.append(stream)
    output = folder / "output"
    first = True
    while (case := pipe.recv()) is not None:
        for number in (1, 2):
            os.ftruncate(number, 0)
            os.lseek(number, 0, os.SEEK_SET)
        output.mkdir()
        start = time.perf_counter()
        status: object = 0
        try:
            sys.argv = ["las", *arguments(model, [case.path], output if case.writes else None)]
            main.main()
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
        seconds = time.perf_counter() - start
        sys.stdout.flush()
        sys.stderr.flush()
        texts = [(folder / f"stream{n}").read_bytes().decode(errors="replace") for n in (1, 2)]
        files = written(output)
        shutil.rmtree(output)
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        code = status if isinstance(status, int) else int(status is not None)
        pipe.send(Result(code, texts[0], texts[1], files, seconds, peak))
        if first:  # what libraries reserve on their first use is not the file's either
            first = False
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


class Worker:
    """A process that runs cases; another takes its place when it hangs or dies."""

    def __init__(self, model: Path, folder: Path, warm: Case) -> None:
        self.model, self.folder, self.warm = model, folder, warm
        self.process: Any = None
        self.replaced = -1

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.process = context.Process(target=worker, args=(theirs, self.model, self.folder))
        self.process.start()
        theirs.close()
        self.replaced += 1
        self.pipe.send(self.warm)
        if not self.pipe.poll(900.0):  # however busy the machine is
            raise RuntimeError("the worker does not start")
        result = self.pipe.recv()
        if result.status != 0:
            raise RuntimeError(f"the whole file gives no text: {result.err}")

    def run(self, case: Case) -> Result:
        """The command with one file."""
        if self.process is None:
            self._start()
        try:
            self.pipe.send(case)
            if self.pipe.poll(WATCHDOG):
                return self.pipe.recv()
            self.process.kill()
            problem = "broken: hang"
        except (EOFError, ConnectionError):
            self.process.join()
            problem = f"broken: the process died ({self.process.exitcode})"
        self.process.join()
        self.process = None
        return Result(None, err=problem)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            with suppress(ConnectionError):
                self.pipe.send(None)
            self.process.join()
            self.process = None
