"""The commands of ``benchmarks/gpu.sh``.

    benchmarks/gpu.sh                   in ten minutes: smoke, headline, the README's table
    benchmarks/gpu.sh smoke             does everything build, launch and compute right? (90 s)
    benchmarks/gpu.sh headline          numbers, the most telling first; then tests (530 s)
    benchmarks/gpu.sh rest              memory errors, races, counters; what was cut off (170 s)
    benchmarks/gpu.sh show results.tgz  anywhere: reports and the README's table of an archive

Every part is a process with a limit; what fails or is cut off is named, and the next goes on. After
each, all results so far are packed into results.tgz, in $OUT or in build/gpu. A command that is
given again continues what is missing.
"""

import argparse
import importlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import module
from benchmarks.gpu import counters, jobs, parts, probe, report
from benchmarks.gpu.jobs import Job
from benchmarks.gpu.store import Store

SECONDS = {"smoke": 90.0, "headline": 530.0, "rest": 170.0, "all": 600.0}
RESERVE = 20.0  # seconds left for the summary and the last archive
SMOKE = 0.25  # of the seconds of all
SLOWER = 20.0  # a pretended GPU may take so many times as long
IMPORTED = ("attention", "bounds", "decoder", "greedy", "sequence", "tuning")
PYTEST = re.compile(r"^(FAILED|ERROR) |(passed|failed|error|no tests ran).* in [0-9.]+ ?s|crashed")
SANITIZER = re.compile(r"ERROR SUMMARY|RACECHECK SUMMARY|Invalid __|hazard|not supported| passed")


class Run:
    """One command.

    Args:
        store: of the results.
        context: how parts are to run.
        seconds: that it may take.
        copies: whether parts are copies of this process, which has imported all they need.
    """

    def __init__(
        self, store: Store, context: parts.Context, seconds: float, copies: bool = True
    ) -> None:
        self.store, self.context, self.copies = store, context, copies
        self.end = store.begin + seconds
        self.at_once = os.cpu_count() or 1
        self.missing: list[str] = []  # of the parts that were wanted

    def left(self) -> float:
        """Seconds that parts may still take."""
        return self.end - RESERVE - time.monotonic()

    def job(self, name: str, limit: float, title: str = "", **more: Any) -> Job:
        """A part by its name among ``parts.functions``."""
        limit *= SLOWER if self.context.pretend else 1.0
        what = parts.functions(self.context)[name] if self.copies else self.program(name)
        return Job(title or name, limit, what, **more)

    def program(self, name: str) -> list[str]:
        """A part as a program that imports everything anew."""
        given = [*("--folder", str(self.context.folder.parent)), "--part", name]
        given += ["--smallest"] * self.context.smallest + ["--pretend"] * self.context.pretend
        given += ["--without", self.context.without] if self.context.without else []
        return [sys.executable, "-m", "benchmarks.gpu", *given]

    def run(self, *some: Job, at_once: int = 1) -> list[str]:
        """Run parts; the names of those that failed, which are kept as missing."""
        failed = [job.name for job in jobs.run(some, self.store, self.left, at_once)]
        self.missing += failed
        return failed

    def start(self) -> None:
        """Import, and ask the machine what it has."""
        unable = probe.lacks(probe.NEEDED)
        if unable:
            raise SystemExit(f"error: it needs {', '.join(unable)}: pip install {' '.join(unable)}")
        if self.copies:
            for name in IMPORTED:
                importlib.import_module(module(name))
        before = self.store.load("measured")
        if self.run(self.job("machine", 60)):
            self.store.say("a copy of this process cannot use the GPU: every part imports anew")
            self.copies, self.missing = False, []
            if self.run(self.job("machine", 60)):
                raise SystemExit("error: no process can use the GPU, see above")
        machine = self.store.load("machine")
        if "error" in machine:
            raise SystemExit(f"error: {machine['error']}")
        if before and any(before.get(key) != machine[key] for key in ("device", "code")):
            self.store.set_aside()
            self.store.save("machine", machine)
        self.store.save("measured", machine)
        if reason := machine["no CUDA kernels"]:
            self.store.say(f"left out, the kernels in CUDA C++: {reason}")
            self.context = self.context._replace(without=reason)
        if "Exclusive" in machine["nvidia-smi"]:
            self.at_once = 1  # no second process may use the GPU

    def builds(self) -> list[Job]:
        """Both libraries of CUDA kernels, unless they are there."""
        if self.context.without:
            return []
        names = [f"build {kind}" for kind in parts.LIBRARIES]
        return [self.job(name, 150) for name in names if self.store.status(name) != "done"]

    def build(self) -> None:
        """Build both, or do without them."""
        if failed := self.run(*self.builds(), at_once=2):
            reason = f"{', '.join(failed)} failed, see above"
            self.store.say(f"left out, the kernels in CUDA C++: {reason}")
            self.context = self.context._replace(without=reason)

    def wanted(self, *some: parts.Part) -> list[parts.Part]:
        """Parts whose packages are there; the others are named."""
        found = []
        for part in some:
            if lacking := probe.lacks(part.needs):
                self.store.say(f"left out, {part.name}: it needs {', '.join(lacking)}")
            else:
                found.append(part)
        return found

    def smoke(self, again: bool = True) -> None:
        """Build, check and start everything, all at once; what was clean only if again."""
        context, self.context = self.context, self.context._replace(smallest=True)
        some = self.builds()
        for name, selection in parts.CHECKS.items():
            if not (selection.cuda and self.context.without):
                some.append(self.job(f"check {name}", 85, shown=PYTEST))
        for part in self.wanted(*parts.HEADLINE, parts.TILES):
            some.append(self.job(part.name, 85, f"smallest {part.name}", lines=4))
        some = [job for job in some if again or self.store.status(job.name) != "done"]
        failed = self.run(*some, at_once=self.at_once)
        self.context = context
        self.store.say(f"smoke: NOT CLEAN: {', '.join(failed)}" if failed else "smoke: clean")

    def headline(self) -> None:
        """Measure what is missing, one after another."""
        self.build()
        for part in self.wanted(*parts.HEADLINE):
            if self.store.status(part.name) != "done":
                self.run(self.job(part.name, part.limit))
        if not self.store.status("tests").startswith(("done", "failed")):
            self.run(self.job("tests", 130, shown=PYTEST))
        if self.store.status(parts.TILES.name) != "done":
            self.run(self.job(parts.TILES.name, parts.TILES.limit))

    def rest(self) -> None:
        """Look for errors that results do not show, count, and measure what is missing."""
        self.build()
        some = []
        for name, selection in parts.SANITIZED.items():
            if not (selection.cuda and self.context.without):
                tool = ["compute-sanitizer", "--tool", name.split()[0], "--error-exitcode", "9"]
                # Or errors would hide within the blocks that torch keeps.
                variables = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
                what = [*tool, "--print-limit", "5", *self.program(name)]
                some.append(Job(name, 75, what, variables, SANITIZER, 12))
        if self.tool("compute-sanitizer"):
            self.run(*some, at_once=self.at_once)
        if self.tool("ncu"):
            job = Job("counters", 45, counters.command(self.program("counters")))
            self.run(job)
            found = list(counters.report(job.log.read_text(errors="replace"))) if job.pid else []
            self.store.save("counters", {"rows": found})
            for row in found:
                self.store.say(counters.told(row))
        self.headline()

    def tool(self, name: str) -> bool:
        """Whether a program is there; it is named if not."""
        there: bool = self.store.load("machine")[name] != "none"
        if not there:
            self.store.say(f"left out: no {name} here")
        return there

    def finish(self) -> int:
        """Say what it comes to; the exit status."""
        if (self.store.folder / "results").exists():
            left = max(5.0, self.end - time.monotonic() - 2.0)
            jobs.run([self.job("summary", 30, lines=200)], self.store, lambda: left)
        if self.missing:
            self.store.say(f"failed, cut off or not started: {', '.join(self.missing)}")
        self.store.say(f"results: {self.store.archive}")
        self.store.pack()
        return 1 if self.missing else 0


def guarded(store: Store, work: Callable[[], int]) -> int:
    """Do the work; however it ends, by an error or from outside, the archive is made.

    Returns:
        Its exit status, or that of a program that was terminated.
    """

    def stopped(*_: object) -> None:
        store.stopped = True  # for the exception is lost where a fork calls what it interrupts
        if not store.starting:  # or nobody would know of the process that has just begun
            raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {each: signal.signal(each, stopped) for each in signals}
    try:
        return work()
    except KeyboardInterrupt:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        store.say("stopped from outside")
        return 128 + signal.SIGTERM
    finally:
        store.pack()
        for each, handler in before.items():
            signal.signal(each, handler)


def measure(chosen: argparse.Namespace) -> int:
    """Smoke, headline, rest, or the first two and the table."""
    command = chosen.command or "all"
    folder = chosen.folder.resolve()
    store = Store(folder / "run", Path(os.environ.get("OUT") or folder) / "results.tgz")
    context = parts.Context(store.folder, pretend=chosen.pretend)
    seconds = chosen.seconds or SECONDS[command] * (SLOWER if chosen.pretend else 1.0)
    run = Run(store, context, seconds, not chosen.anew)

    def work() -> int:
        store.say(f"benchmarks/gpu.sh {command}, {seconds:.0f} s at most")
        run.start()
        if command == "all":
            end, run.end = run.end, store.begin + SMOKE * seconds
            run.smoke(again=False)
            run.end = end
        if command == "smoke":
            run.smoke()
        if command in ("headline", "all"):
            run.headline()
        if command == "rest":
            run.rest()
        return run.finish()

    status = guarded(store, work)
    if command == "all" and (store.folder / "results").exists():
        report.show(store.archive, chosen.into, log=False)
    return status


def main(given: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh",
        description=__doc__,
        epilog=f"Wheels for a machine that lacks pydantic are taken from .whl/: {probe.DOWNLOAD}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ("smoke", "headline", "rest", "show")
    parser.add_argument(
        "command", nargs="?", choices=commands, help="without: smoke, headline, show"
    )
    parser.add_argument("archive", nargs="?", type=Path, help="of show: results.tgz")
    parser.add_argument("--seconds", type=float, help="that the command may take")
    parser.add_argument("--folder", type=Path, help="of the run; default: build/gpu")
    parser.add_argument("--into", type=Path, help="folder of the reports")
    parser.add_argument("--pretend", action="store_true", help="rehearse it, on a CPU, tiny")
    parser.add_argument("--anew", action="store_true", help="every part imports anew")
    for hidden in ("--part", "--without"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--smallest", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(given)
    if chosen.archive is not None and chosen.command != "show":
        parser.error(f"{chosen.command}: takes no archive")
    if chosen.folder is None:  # a rehearsal is not to take the place of what was measured
        chosen.folder = probe.ROOT / "build" / ("gpu-pretended" if chosen.pretend else "gpu")
    if chosen.into is None:
        results = probe.ROOT / "benchmarks" / "results"
        chosen.into = chosen.folder / "reports" if chosen.pretend else results
    if not chosen.part:  # which has it from the program that started it
        probe.unpack_wheels(probe.ROOT / ".whl", chosen.folder / "site")
    if chosen.pretend:
        os.environ["TRITON_INTERPRET"] = "1"
    # A pool of compilers takes longer to start than the few kernels to compile; and whether there
    # is a GPU is to be asked without beginning to use it, or no copy of the process could.
    os.environ |= {"TORCHINDUCTOR_COMPILE_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if chosen.part:
        context = parts.Context(
            chosen.folder / "run", chosen.smallest, chosen.pretend, chosen.without
        )
        return parts.functions(context)[chosen.part]()
    if chosen.command == "show":
        if chosen.archive is None:
            parser.error("show: which archive?")
        return report.show(chosen.archive, chosen.into)
    return measure(chosen)


if __name__ == "__main__":
    sys.exit(main())
