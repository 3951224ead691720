"""Starts the processes of a data-parallel training with torch's elastic launcher.

``torchrun`` does the same, but ends with a report of its own, and after SIGTERM with a traceback.
"""

import logging
import os
import re
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.api import SignalException, SubprocessContext
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from las.errors import LASError
from las.training.distributed import LOST

SAVING = 600
"""Seconds that processes have for ending a step and saving after a signal."""


@dataclass(frozen=True)
class Machines:
    """The machines of a training.

    Attributes:
        fewest: Number of machines that it starts with.
        most: Number of machines that may take part.
        rendezvous: Address where they meet, ``host:port``, on one of them; empty on one machine.
        restarts: Times that its processes are started again after one has failed.
    """

    fewest: int = 1
    most: int = 1
    rendezvous: str = ""
    restarts: int = 0

    @classmethod
    def from_options(cls, nodes: str, rendezvous: str, restarts: int) -> "Machines":
        """From the options of the command.

        Raises:
            LASError: they are not valid.
        """
        found = re.fullmatch(r"([1-9]\d*)(?::([1-9]\d*))?", nodes)
        fewest = int(found[1]) if found else 0
        most = int(found[2] or fewest) if found else 0
        if not 0 < fewest <= most:
            raise LASError(f"--nodes {nodes}: give a number of machines, or the range FEWEST:MOST")
        if most > 1 and not rendezvous:
            raise LASError(
                "--nodes: give --rendezvous HOST:PORT as well, with the name of one of the machines"
            )
        if rendezvous and not re.fullmatch(r".+:\d+", rendezvous):
            raise LASError(f"--rendezvous {rendezvous}: give HOST:PORT, such as node1:29400")
        return cls(fewest, most, rendezvous, restarts)


def run_together(count: int, arguments: Sequence[str], machines: Machines = Machines()) -> int:
    """Run ``python -m las ARGUMENTS`` in several processes of one torch.distributed group.

    Their standard error is printed when they have ended, each distinct line once.

    Args:
        count: number of processes of this machine.
        arguments: of the command.
        machines: that take part.

    Returns:
        the exit status of the process that failed first; 130 or 143 after a signal, which is
        forwarded to the processes. They then have :data:`SAVING` seconds.
    """
    # Silence the launcher's messages; each of its loggers has its own level.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # A store for each start of the processes: the shared one keeps addresses of those before.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    ended = ""
    with tempfile.TemporaryDirectory(prefix="las-") as folder:
        config = LaunchConfig(
            min_nodes=machines.fewest,
            max_nodes=machines.most,
            nproc_per_node=count,
            run_id="las" if machines.rendezvous else uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=machines.rendezvous or "localhost:0",
            max_restarts=machines.restarts,
            monitor_interval=0.2,
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=Std.ERR),
        )
        try:
            with _time_to_save():
                elastic_launch(config, sys.executable)("-u", "-m", "las", *arguments)
            status = 0
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            status = failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
            if failure.exitcode < 0:
                ended = _killed(rank, -failure.exitcode)
        except SignalException as error:
            status = 128 + int(error.sigval)
        except RuntimeError as error:  # torch has various types for it
            status, reason = 1, " ".join(str(error).split())[:200]
            ended = f"error: the machines of the training did not meet at {config.rdzv_endpoint} "
            ended += f"({type(error).__name__}: {reason}); check --rendezvous and --nodes"
        logs = sorted(Path(folder).rglob("stderr.log"))
        written = [log.read_text("utf-8", errors="replace") for log in logs]
    for line in _without_consequences(written, ended):
        print(line, file=sys.stderr)
    return status


@contextmanager
def _time_to_save() -> Iterator[None]:
    """Let processes end their step after a signal: torch kills them 30 s later, a fixed limit.

    It stays where a process has failed: the others may wait for it. A second signal has it, too.
    """
    close = SubprocessContext._close
    asked = False

    def patient(self: SubprocessContext, death_sig: signal.Signals, timeout: int = 30) -> None:
        nonlocal asked
        saves = isinstance(sys.exception(), SignalException) and not asked
        asked = asked or saves
        close(self, death_sig, SAVING if saves else timeout)
        killed = [one.proc.returncode for one in self.subprocess_handlers.values()]
        if saves and -signal.SIGKILL in killed:
            print(
                f"error: {killed.count(-signal.SIGKILL)} processes of the training did not end "
                f"within {SAVING} s of {death_sig.name} and were killed; the same command resumes "
                "from the last checkpoint",
                file=sys.stderr,
            )

    SubprocessContext._close = patient  # type: ignore[method-assign]  # no setting for it
    try:
        yield
    finally:
        SubprocessContext._close = close  # type: ignore[method-assign]


def _killed(rank: int, number: int) -> str:
    name = signal.Signals(number).name
    why = ", as the system does when memory runs out" * (number == signal.SIGKILL)
    return (
        f"error: process {rank} of the training was ended by {name}{why}; the same command "
        "resumes from the last checkpoint"
    )


def _without_consequences(written: Sequence[str], ended: str) -> list[str]:
    """The distinct lines of the processes, and how one ended that could say nothing.

    That a process has lost another is left out where the other's reason is there.
    """
    lines = list(dict.fromkeys(line for text in written for line in text.splitlines()))
    causes = [line for line in lines if LOST not in line]
    if ended or any(line.startswith(("error: ", "Traceback")) for line in causes):
        lines = causes
    return [*lines, ended] if ended else lines
