"""Device, threads, precision, seeds and stop signals of a process."""

import contextlib
import ctypes
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from las import threads
from las.config import TrainingConfig
from las.errors import LASError


def choose_device(name: str) -> torch.device:
    """The device of a setting; ``auto`` is the GPU of this process if there is one.

    Raises:
        LASError: ``cuda`` without a GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise LASError("device cuda: torch finds no GPU; use auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def choose_threads(wanted: int = 0, asked: str = "--threads") -> int:
    """Set the number of CPU threads of torch.

    One is best for inference: the steps of search and of the listener's LSTM are too small to be
    shared, and on a busy machine two threads that wait for each other took 5 to 60 times as long
    as one (benchmarks/README.md). For many files, run several processes.

    Args:
        wanted: threads; 0 takes the environment variable ``OMP_NUM_THREADS``, or 1.
        asked: option or setting that asks for them, for the message.

    Returns:
        the number of threads.

    Raises:
        LASError: too many threads.
    """
    count = threads.checked(wanted, asked) or threads.of_environment() or 1
    torch.set_num_threads(count)
    return count


def precision(settings: TrainingConfig, device: torch.device) -> torch.autocast:
    """Autocast of the training: bfloat16 if set, and by default on a GPU."""
    wanted = settings.precision
    enabled = wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def inference_precision(name: str) -> torch.dtype:
    """The dtype of a model's listener, for ``LAS.precision``.

    Args:
        name: ``float32``, ``bfloat16``, or ``auto``, which is float32, as texts then do not depend
            on the batch.

    Raises:
        LASError: there is no such precision.
    """
    known = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise LASError(f"--precision {name}: the precisions are {', '.join(known)}")
    return known[name]


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def step_seed(*parts: int) -> int:
    """A seed for one step of a training, from the numbers that identify the step.

    No generator state has to be saved: a resumed training draws the same random numbers as an
    uninterrupted one.
    """
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def end_with_parent() -> None:
    """Ask Linux for SIGTERM when the process that started this one ends, even if it is killed."""
    with contextlib.suppress(OSError, AttributeError):  # another system
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@dataclass
class StopRequest:
    """Whether the user or the system has asked the process to stop."""

    received: bool = False


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM instead of ending the process, so that a step can be completed."""
    request = StopRequest()

    def note(*_: Any) -> None:
        request.received = True

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
