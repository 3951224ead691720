"""Blocks -> results by workers of Ray Data: actors that hold a model each.

A worker that dies is started again, and what it had is given out again. A block at which workers
keep dying is given out file by file, so that only the file that kills them has no result.
"""

import logging
import math
import os
import pickle
import secrets
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data

from las.audio import mute_stderr
from las.bulk.blocks import Block, Files
from las.bulk.results import Result, error_row
from las.errors import LASError, shown
from las.imports import missing_extra

Maker = Callable[[str], Callable[[Block], Result]]
"""Device -> what transcribes blocks."""

_STORE_BYTES = 256 * 1024**2  # of Ray's shared memory: a block's names go in, its rows come out
_STARTS = 3  # of Ray: on a busy machine its own limit of half a minute may be too short
_TRIES = 3  # of a block before its files are given out one by one
_TRIES_SINGLY = 2


@dataclass(frozen=True)
class Pool:
    """The workers of a run."""

    workers: int
    gpus: float  # of a worker
    device: str


class Deaths:
    """Counts what workers began, as those that die cannot tell: an actor beside them.

    Args:
        tries: of a block, at most.
        starts: of workers with no block done, at most.
    """

    def __init__(self, tries: int, starts: int) -> None:
        self.tries, self.starts = tries, starts
        self.begun: Counter[int] = Counter()
        self.started = 0

    def may_start(self) -> bool:
        """Whether another worker may load the model."""
        self.started += 1
        return self.started <= self.starts

    def may_begin(self, block: int) -> bool:
        """Whether a block may be begun."""
        self.begun[block] += 1
        allowed = self.begun[block] <= self.tries
        if not allowed:
            self.done()
        return allowed

    def done(self) -> None:
        """A block is done, or given up: workers do not die at once."""
        self.started = 0


@dataclass(frozen=True)
class Problem:
    """What ends a run, found by a worker."""

    message: str  # for the user; or a traceback, if the program is to blame
    expected: bool


@contextmanager
def ray_running(
    address: str | None = None, workers: int | None = None, gpus: int = 0
) -> Iterator[None]:
    """Use a cluster, the Ray of this process if there is one, or start one that ends with it.

    Args:
        address: of a cluster; None is this machine.
        workers: as many can run at least, if it is this machine.
        gpus: of this machine.

    Raises:
        LASError: Ray cannot be started, or no cluster answers.
    """
    for name in ("ray", "ray.data"):
        logger = logging.getLogger(name)
        for handler in [h for h in logger.handlers if isinstance(h, logging.StreamHandler)]:
            logger.removeHandler(handler)
        logger.propagate = False
    if ray.is_initialized():
        yield
        return
    if address is None and not any(name.startswith("RAY_AUTH_") for name in os.environ):
        # Ray would leave a token in the home folder, which later clusters then ask for.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    local: dict[str, Any] = {
        "num_cpus": max(workers or 1, _cores()),
        "num_gpus": gpus,
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
    }
    for left in reversed(range(_STARTS if address is None else 1)):
        try:
            with mute_stderr.c_stderr():  # where Ray's C++ then writes for good
                ray.init(
                    address or "local",
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    **({} if address else local),
                )
            break
        except Exception as error:  # various types, also for a cluster of another version
            ray.shutdown()
            if not left:
                raise _not_running(address, error) from None
    try:
        yield
    finally:
        ray.shutdown()


def _not_running(address: str | None, error: Exception) -> LASError:
    line = " ".join(str(error).split())[:300]
    if address is None:
        return LASError(
            f"Ray cannot be started on this machine ({line}); try again when it is idle"
        )
    return LASError(
        f"--address {address}: no Ray cluster that can be used ({line}); start one with "
        "`ray start --head`, with the same versions of Python and Ray"
    )


def pool(workers: int | None, device: str) -> Pool:
    """The workers for the machines that Ray has.

    Args:
        workers: number of workers; None is one for each GPU, or core where there are none.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        LASError: ``cuda`` without a GPU.
    """
    has = ray.cluster_resources()
    gpus = 0 if device == "cpu" else int(has.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise LASError("device cuda: Ray finds no GPU; use auto or cpu")
    if not gpus:
        return Pool(workers or max(1, int(has.get("CPU", 1))), 0, "cpu")
    workers = workers or gpus
    each = math.ceil(workers / gpus)  # workers that share a GPU
    return Pool(workers, math.floor(1e4 / each) / 1e4, "cuda")


def transcribe(
    blocks: Mapping[int, Block], make: Maker, using: Pool
) -> Iterator[tuple[int, Result]]:
    """Transcribe blocks; Ray is running.

    Args:
        blocks: by their numbers.
        make: makes what transcribes, in each worker; by importing it, so it must be a name of a
            module, or a partial of one, such as of :class:`las.bulk.recognition.Recogniser`.
        using: the workers.

    Yields:
        each number once, as blocks are done, with what came of its block.

    Raises:
        LASError: no worker can load the model, or read what the inputs are.
    """
    numbers = list(blocks)
    done = set()
    for at, result in _run([blocks[number] for number in numbers], make, using, _TRIES):
        done.add(numbers[at])
        yield numbers[at], result
    for number in numbers:
        if number not in done:
            yield number, _singly(blocks[number], make, using)


def _singly(block: Block, make: Maker, using: Pool) -> Result:
    """Transcribe a block at which workers died; the files at which they die again are errors."""
    singles = block.singles()
    found = dict(_run(singles, make, using, _TRIES_SINGLY))
    whole = Result()
    for at, single in enumerate(singles):
        result = found.get(at)
        if result is None:
            which = single.path if isinstance(single, Files) else f"{single.path}: utterance {at}"
            reason = (
                f"{shown(which)}: the worker died at it {_TRIES_SINGLY} times, of a crash or of "
                "too little memory; try it alone with `las transcribe`, or with fewer --workers"
            )
            result = Result(errors=[error_row(single.path, None, reason)])
        whole.add(result)
    return whole


def _run(
    blocks: Sequence[Block], make: Maker, using: Pool, tries: int
) -> Iterator[tuple[int, Result]]:
    """Transcribe blocks but for those at which workers die; each with its position."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    counter = ray.remote(num_cpus=0, max_restarts=-1)(Deaths)
    deaths = counter.remote(tries, 4 * using.workers)
    rows = [{"index": at, "block": pickle.dumps(block)} for at, block in enumerate(blocks)]
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        fn_constructor_args=(make, using.device, str(Path.cwd()), deaths),
        batch_size=1,
        batch_format="pyarrow",
        # Of two tasks one runs and one waits: more would leave others idle at the end.
        compute=ray.data.ActorPoolStrategy(
            size=min(using.workers, len(rows)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=1,
        num_gpus=using.gpus,
    )
    tables = data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for table in _expected(tables):
        for at, outcome in zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True):
            found = pickle.loads(outcome)
            if isinstance(found, Problem):
                raise (LASError if found.expected else RuntimeError)(found.message)
            if found is not None:
                yield at, found


def _expected(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """What Ray gives; its own errors as one line.

    Raises:
        LASError: it cannot go on.
    """
    try:
        yield from tables
    except ray.exceptions.RayError as error:
        line = " ".join(str(error).split())[:300]
        raise LASError(
            f"Ray cannot go on ({type(error).__name__}: {line}); the same command continues"
        ) from None


class Worker:
    """A model in a process of its own; Ray Data makes and calls it.

    Args:
        make: makes what transcribes.
        device: where to compute.
        folder: that relative paths are relative to.
        deaths: the actor that counts.
    """

    def __init__(self, make: Maker, device: str, folder: str, deaths: Any) -> None:
        self.folder, self.deaths = folder, deaths
        self.problem: Problem | None = None
        with suppress(OSError):  # a machine of the cluster may not have it
            os.chdir(folder)
        try:
            if not ray.get(deaths.may_start.remote()):
                raise LASError(
                    f"{socket.gethostname()}: workers die while they load the model or at their "
                    "first block; try fewer --workers, if memory is short"
                )
            self.recogniser = make(device)
        except Exception as error:  # Ray would try again for ever
            self.problem = _problem(error)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Transcribe the blocks of a table."""
        pairs = zip(table["index"].to_pylist(), table["block"].to_pylist(), strict=True)
        found = [pickle.dumps(self._outcome(index, block)) for index, block in pairs]
        columns = [table["index"], pa.array(found, pa.large_binary())]
        return pa.table(dict(zip(_COLUMNS, columns, strict=True)))

    def _outcome(self, index: int, pickled: bytes) -> Result | Problem | None:
        """What came of a block; None if workers keep dying at it."""
        if self.problem is not None:
            return self.problem
        try:
            if not ray.get(self.deaths.may_begin.remote(index)):
                return None
            block: Block = pickle.loads(pickled)
            if block.relative and Path.cwd() != Path(self.folder):
                raise LASError(
                    f"{self.folder}: no such folder on {socket.gethostname()}; give inputs as "
                    "absolute paths that all machines of the cluster have"
                )
            result = self.recogniser(block)
            self.deaths.done.remote()
            return result
        except Exception as error:
            return _problem(error)


_COLUMNS = ("index", "outcome")


def _problem(error: Exception) -> Problem:
    """An error of a worker, as what the command prints."""
    host = socket.gethostname()
    if isinstance(error, LASError):
        return Problem(str(error), expected=True)
    if isinstance(error, ModuleNotFoundError) and (cure := missing_extra(error)) is not None:
        return Problem(f"{host}: {cure}", expected=True)
    if isinstance(error, OSError):
        name = error.filename or "files"
        return Problem(f"{host}: {name}: {error.strerror or error}", expected=True)
    return Problem(f"a worker failed on {host}:\n{traceback.format_exc()}", expected=False)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
