"""Parts of a run as processes, each with a limit of time of its own.

A part is a program, or a function in a copy of this process, which has imported already what
takes seconds to import. What it prints goes to a log; the lines that tell go to the screen too.
"""

import contextlib
import faulthandler
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.gpu.store import Store

LEAST = 5.0  # seconds below which nothing is started
PATIENCE = (4.0, 10.0)  # seconds after its limit: until a part is killed, until it is given up
PAUSE = 0.05
# How a line that is a result begins.
RESULTS = re.compile(
    "^(machine|build|bounds|sequence|attention|decoder|training|greedy|tuning|missing|summary): "
)
TOLD = 8  # lines of a part that failed

Function = Callable[[], int]


class Job:
    """A part to run.

    Args:
        name: of its log, and of what is said about it.
        limit: seconds that it may take.
        what: a program with its arguments, or a function that returns an exit status.
        environment: variables for it.
        shown: what is in a line that goes to the screen.
        lines: at most so many of them.
    """

    def __init__(
        self,
        name: str,
        limit: float,
        what: Sequence[str] | Function,
        environment: Mapping[str, str] | None = None,
        shown: re.Pattern[str] = RESULTS,
        lines: int = 60,
    ) -> None:
        self.name, self.limit, self.what = name, limit, what
        self.environment = dict(environment or {})
        self.shown, self.lines = shown, lines
        self.pid = 0
        self.status: int | None = None
        self.cut = False
        self._read = 0
        self._rest = b""

    @property
    def failed(self) -> bool:
        """Whether it is not to be relied on: it failed, was cut off, or never ran."""
        return self.cut or self.status != 0

    def start(self, logs: Path, seconds: float) -> None:
        """Begin; to be ended after so many seconds."""
        self.begin = time.monotonic()
        self.deadline = self.begin + seconds
        self.log = logs / f"{re.sub(r'[^a-z0-9]+', '-', self.name.lower())}.log"
        with self.log.open("ab") as log:
            self._read = log.tell()
            if callable(self.what):
                self._process = None
                self.pid = _copy(self.what, log.fileno(), self.environment, seconds)
            else:
                self._process = subprocess.Popen(
                    self.what,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **self.environment},
                    process_group=0,
                )
                self.pid = self._process.pid

    def ended(self) -> bool:
        """Whether it has; then ``status`` is known."""
        if self._process is not None:
            self.status = self._process.poll()
        else:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def kill(self, what: int) -> None:
        """Send a signal to it and all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, what)

    def follow(self, say: Callable[[str], None], last: bool = False) -> None:
        """Show what it has printed since."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            data = log.read()
        self._read += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if last:
            lines.append(self._rest)
        for line in lines:
            text = line.decode(errors="replace").strip()
            if self.shown.search(text) and self.lines > 0:
                self.lines -= 1
                say(text[:170])

    def tail(self) -> list[str]:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line[:200] for line in lines if line.strip()][-TOLD:]


def _copy(call: Function, log: int, environment: Mapping[str, str], seconds: float) -> int:
    """Run a function in a copy of this process; its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # both do it: neither knows who comes first
            os.setpgid(pid, pid)
        return pid
    status = 1
    try:
        os.setpgid(0, 0)
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False, errors="replace")
        os.environ.update(environment)
        faulthandler.enable(2)
        faulthandler.dump_traceback_later(max(seconds - 0.5, 0.1), file=2)  # where it hangs
        status = call()
    except SystemExit as stopped:
        if isinstance(stopped.code, str):
            print(stopped.code)
        status = stopped.code if isinstance(stopped.code, int) else 0 if not stopped.code else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(status)


def run(
    jobs: Sequence[Job], store: Store, left: Callable[[], float], at_once: int = 1
) -> list[Job]:
    """Run parts, each within its limit or what is left, whichever is less.

    Args:
        jobs: the parts; the first is started first.
        store: keeps how each ended, and makes its archive after each.
        left: seconds that are left for all.
        at_once: so many run at the same time.

    Returns:
        Those that failed, were cut off or not started.
    """
    waiting, running = list(jobs), list[Job]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                seconds = min(job.limit, left())
                if seconds < min(LEAST, job.limit):
                    job.cut = True
                    store.note(job.name, "not started: no time left")
                    continue
                store.starting = True
                try:
                    job.start(store.logs, seconds)
                    running.append(job)
                except OSError as error:
                    job.cut = True
                    store.note(job.name, f"failed: {error}")
                finally:
                    store.starting = False
                if store.stopped:
                    break
            if store.stopped:
                raise KeyboardInterrupt
            time.sleep(PAUSE)
            for job in list(running):
                job.follow(store.say)
                over = time.monotonic() - job.deadline
                if job.ended():
                    job.kill(signal.SIGKILL)  # what it may have left running
                    running.remove(job)
                    _ended(job, store)
                elif over > PATIENCE[1]:
                    running.remove(job)
                    job.cut, job.status = True, -signal.SIGKILL
                    took = time.monotonic() - job.begin
                    store.note(job.name, "cut off, and does not end", took)
                elif over > PATIENCE[0]:
                    job.kill(signal.SIGKILL)
                elif over > 0 and not job.cut:
                    job.cut = True
                    job.kill(signal.SIGINT)  # so that pytest writes its report
    finally:
        for job in running:
            job.kill(signal.SIGKILL)
        end = time.monotonic() + PATIENCE[1]
        for job in running:  # or what it was writing would change while it is packed
            while not job.ended() and time.monotonic() < end:
                time.sleep(0.01)
    return [job for job in jobs if job.failed]


def _ended(job: Job, store: Store) -> None:
    job.follow(store.say, last=True)
    status = "done" if job.status == 0 else f"failed, status {job.status}"
    status = "cut off" if job.cut else status
    store.note(job.name, status, time.monotonic() - job.begin)
    if job.failed:
        for line in job.tail():
            store.say(f"   {line}")
    store.pack()
