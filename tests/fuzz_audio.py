"""Damaged audio files through `las transcribe`: no traceback, no hang, no partial output.

    python tests/fuzz_audio.py --cases 10000 --output fuzz.json

Every case is a function of the seed and its number. Most run in one worker process that calls the
command's entry point (a model is loaded each time, as for a user), under a limit of memory and
with a watchdog; a share runs again through real processes, many files each, and must give the
same. Exit status 1 if any case broke a rule; its file is kept with --keep.
"""

import argparse
import collections
import json
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from fuzz_mutations import mutate, originals
from numpy.random import default_rng

WATCHDOG = 20.0  # seconds a file may take
MEMORY = 2 << 30  # bytes of address space that a file may take on top of the model's
GROUP = 25  # files that a real process is given
SAMPLE = Path(__file__).parents[1] / "las" / "samples" / "501-1-0004.wav"


@dataclass(frozen=True)
class Case:
    """A damaged file."""

    number: int
    container: str
    mutations: list[str]
    path: Path


@dataclass(frozen=True)
class Result:
    """What the command did with it."""

    status: int | None  # None: it did not come back
    out: str = ""
    err: str = ""
    left: list[str] = field(default_factory=list)  # in the folder for its output
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
    from las.model import LAS

    torch.manual_seed(0)
    config = ModelConfig(
        frontend=FrontendConfig(n_mels=20),
        listener=ListenerConfig(layers=1, width=16, reduction=4, stack=4),
        attention=AttentionConfig(kind="dot", width=16),
        speller=SpellerConfig(layers=1, width=16, embedding=8),
    )
    LAS(config).save_pretrained(folder)


def make(seed: int, number: int, files: dict[str, bytes], folder: Path) -> Case:
    """Write the damaged file of a number."""
    random = default_rng([seed, number])
    container = str(random.choice(list(files)))
    data, names = mutate(random, files[container])
    suffix = Path(container).suffix
    if random.random() < 0.03:
        suffix = str(random.choice([".wav", ".mp3", ".flac", ".raw", ".m4a", ".xyz", ""]))
    stem = str(
        random.choice(["case", "c a s e", "\u00e7ase", "ca\nse"], p=[0.94, 0.02, 0.02, 0.02])
    )
    path = folder / f"{stem}-{number:06d}{suffix}"
    path.write_bytes(data)
    return Case(number, container, names, path)


def arguments(model: Path, output: Path, files: list[Path]) -> list[str]:
    """The command line."""
    del output  # the command prints
    return ["transcribe", *map(str, files), "--model", str(model), "--device", "cpu"]


def verdict(case: Case, result: Result) -> str:
    """`text` or `error`, or how the case broke the rules."""
    if result.status is None:
        return result.err or "broken: hang"
    if "Traceback" in result.out + result.err:
        return "broken: traceback"
    if result.left:
        return "broken: a file was left behind"
    out, err = result.out.splitlines(), result.err.splitlines()
    if result.status == 0:
        if err:
            return "broken: a text, and something on standard error"
        return "text" if len(out) == 1 else "broken: not one line of text"
    if result.status != 1:
        return f"broken: exit status {result.status}"
    if out:
        return "broken: an error, and something on standard output"
    if len(err) != 1 or not err[0].startswith("error: "):
        return "broken: not one line of error"
    name = str(case.path)
    named = (name if name.isprintable() else ascii(name)) in err[0]
    return "error" if named else "broken: the error does not name the file"


# --- the worker -----------------------------------------------------------------------------


def worker(pipe: Connection, model: Path, folder: Path) -> None:
    """Run the command for every path received; standard output and error go to files."""
    import warnings

    import torch

    from las import cli, transcribe  # noqa: F401  # what the command imports is not the file's

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
    while (path := pipe.recv()) is not None:
        for number in (1, 2):
            os.ftruncate(number, 0)
            os.lseek(number, 0, os.SEEK_SET)
        output.mkdir()
        start = time.perf_counter()
        status: object = 0
        try:
            sys.argv = ["las", *arguments(model, output, [path])]
            cli.main()
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
        seconds = time.perf_counter() - start
        sys.stdout.flush()
        sys.stderr.flush()
        texts = [(folder / f"stream{n}").read_bytes().decode(errors="replace") for n in (1, 2)]
        left = sorted(p.name for p in output.rglob("*"))
        shutil.rmtree(output)
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        code = status if isinstance(status, int) else int(status is not None)
        pipe.send(Result(code, texts[0], texts[1], left, seconds, peak))
        if first:  # what libraries reserve on their first use is not the file's either
            first = False
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


class Worker:
    """A process that runs cases; another takes its place when it hangs or dies."""

    def __init__(self, model: Path, folder: Path, warm: Path) -> None:
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
        if not self.pipe.poll(120.0):
            raise RuntimeError("the worker does not start")
        result = self.pipe.recv()
        if result.status != 0:
            raise RuntimeError(f"the whole file gives no text: {result.err}")

    def run(self, path: Path) -> Result:
        """The command with one file."""
        if self.process is None:
            self._start()
        try:
            self.pipe.send(path)
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


# --- the whole ------------------------------------------------------------------------------


def real(model: Path, folder: Path, done: list[tuple[Case, Result]]) -> list[tuple[Case, str]]:
    """Give files to one process of the command; cases for which it does not do the same."""
    output = folder / "real"
    output.mkdir()
    paths = [case.path for case, _ in done]
    command = [sys.executable, "-m", "las", *arguments(model, output, paths)]
    environment = os.environ | {"COLUMNS": "10000", "PYTHONUTF8": "1"}
    try:
        process = subprocess.run(
            command, capture_output=True, timeout=WATCHDOG * len(paths), env=environment
        )
    except subprocess.TimeoutExpired:
        return [(case, "broken: a real process hangs") for case, _ in done]
    finally:
        left = sorted(p.name for p in output.rglob("*"))
        shutil.rmtree(output)
    out, err = (text.decode(errors="replace") for text in (process.stdout, process.stderr))
    wrong = []
    for case, result in done:
        text = f"{case.path}\t{result.out}" if len(done) > 1 else result.out
        if not (text in out if result.status == 0 else result.err in err):
            wrong.append((case, "broken: a real process does something else"))
    lines = sum(len(result.err.splitlines()) for _, result in done)
    status = int(any(result.status for _, result in done))
    if process.returncode != status or len(err.splitlines()) != lines or left:
        wrong.append((done[0][0], "broken: a real process says more, or less"))
    return wrong


def fuzz(
    cases: int, seed: int, share: float, keep: Path | None = None, progress: bool = False
) -> dict[str, Any]:
    """Run the cases 0 to `cases`; `share` of them also through real processes."""
    waveform, _ = soundfile.read(SAMPLE, dtype="float32")
    files = originals(waveform[8000:20000])
    outcomes: collections.Counter[str] = collections.Counter()
    table: dict[str, dict[str, collections.Counter[str]]] = {
        kind: collections.defaultdict(collections.Counter) for kind in ("container", "mutation")
    }
    broken: list[dict[str, Any]] = []
    slowest, peak, again, runs = (0.0, 0), 0, 0, 0
    start = time.perf_counter()

    def note(case: Case, what: str, result: Result | None) -> None:
        broken.append({"outcome": what} | asdict(case) | {"path": case.path.name})
        broken[-1]["err"] = result.err[-2000:] if result else ""
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(case.path, keep / f"{case.number:06d}{case.path.suffix}")

    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        folder = Path(name)
        model = folder / "model"
        write_model(model)
        warm = folder / "whole.wav"
        warm.write_bytes(files["pcm24-stereo.wav"])  # is resampled: loads what that takes
        process = Worker(model, folder / "worker", warm)
        waiting: list[tuple[Case, Result]] = []
        try:
            for number in range(cases):
                case = make(seed, number, files, folder)
                result = process.run(case.path)
                what = verdict(case, result)
                outcomes[what] += 1
                table["container"][case.container][what] += 1
                for mutation in set(case.mutations):
                    table["mutation"][mutation][what] += 1
                slowest = max(slowest, (result.seconds, number))
                peak = max(peak, result.peak)
                if what.startswith("broken"):
                    note(case, what, result)
                    case.path.unlink()
                elif number % 1000 < 1000 * share:
                    waiting.append((case, result))
                else:
                    case.path.unlink()
                if len(waiting) == GROUP or (waiting and number == cases - 1):
                    for odd, problem in real(model, folder, waiting):
                        outcomes[problem] += 1
                        note(odd, problem, None)
                    again, runs = again + len(waiting), runs + 1
                    for other, _ in waiting:
                        other.path.unlink()
                    waiting.clear()
                if progress and (number + 1) % 500 == 0:
                    seconds = time.perf_counter() - start
                    print(f"{number + 1} of {cases}, {seconds:.0f} s: {dict(outcomes)}", flush=True)
        finally:
            process.close()
    return {
        "seed": seed,
        "cases": cases,
        "outcomes": dict(sorted(outcomes.items())),
        "broken": broken,
        "again_in_real_processes": {"files": again, "processes": runs},
        "watchdog_s": WATCHDOG,
        "slowest": {"case": slowest[1], "s": round(slowest[0], 2)},
        "memory": {"limit_above_model_mib": MEMORY >> 20, "peak_resident_mib": peak >> 20},
        "worker_replaced": max(0, process.replaced),
        "seconds": round(time.perf_counter() - start),
        **{
            f"by_{kind}": {name: dict(sorted(c.items())) for name, c in sorted(found.items())}
            for kind, found in table.items()
        },
    }


def versions() -> dict[str, str]:
    """Of what reads audio."""
    import torch

    import las

    program = shutil.which("ffmpeg")
    ffmpeg = "none"
    if program is not None:
        asked = subprocess.run([program, "-version"], capture_output=True, text=True, check=True)
        ffmpeg = asked.stdout.split()[2]
    return {
        "listen-attend-spell": las.__version__,
        "python": platform.python_version(),
        "libsndfile": soundfile.__libsndfile_version__,
        "soundfile": soundfile.__version__,
        "ffmpeg": ffmpeg,
        "numpy": np.__version__,
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
    }


def main(given: list[str] | None = None) -> int:
    """Parse, run, write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.1, help="again through real processes")
    parser.add_argument("--output", type=Path, help="JSON summary; default: standard output")
    parser.add_argument("--keep", type=Path, help="folder for files that broke a rule")
    options = parser.parse_args(given)
    found = fuzz(options.cases, options.seed, options.share, options.keep, progress=True)
    command = (
        f"python tests/fuzz_audio.py --cases {options.cases} --seed {options.seed} "
        f"--share {options.share:g}"
    )
    date = datetime.now(UTC).date().isoformat()
    summary = json.dumps(
        {"command": command, "date": date, "versions": versions()} | found, indent=1
    )
    if options.output is None:
        print(summary)
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(summary + "\n", encoding="utf-8")
    return int(bool(found["broken"]))


if __name__ == "__main__":
    sys.exit(main())
