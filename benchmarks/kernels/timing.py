"""Clocks: medians and the 20th and 80th percentile, on a CPU and on a GPU."""

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

WARM_UPS, REPEATS = 3, 5  # of a call that is timed on a GPU, at least
QUIET = 0.1  # share of the processors that others may use while a CPU is measured
Call = Callable[[int], object]  # takes the number of the copy of its inputs


class Timing(NamedTuple):
    """Microseconds of one call."""

    median_us: float
    p20_us: float
    p80_us: float
    repeats: int


def summary(seconds: list[float], calls: int = 1) -> Timing:
    """Of repeats that took so many seconds for so many calls each."""
    p20, median, p80 = np.percentile(np.array(seconds) * 1e6 / calls, [20, 50, 80])
    return Timing(float(median), float(p20), float(p80), len(seconds))


def time_on_cpu(calls: Mapping[str, Call], repeats: int) -> dict[str, Timing]:
    """Time several things in turn, so that whatever else the machine does meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 2):
        for name, call in calls.items():
            begin = time.perf_counter()
            call(0)
            took = time.perf_counter() - begin
            if repeat > 1:  # the first two compile and warm caches up
                seconds[name].append(took)
    return {name: summary(took) for name, took in seconds.items()}


def others(seconds: float = 0.1) -> float:
    """Share of all processors that is busy while this process sleeps; 0 where it cannot be told."""
    before = _processor_times()
    time.sleep(seconds)
    after = _processor_times()
    if before is None or after is None or after[1] == before[1]:
        return 0.0
    return 1 - (after[0] - before[0]) / (after[1] - before[1])


def _processor_times() -> tuple[int, int] | None:
    """Idle and total time of all processors since the start."""
    try:
        with Path("/proc/stat").open() as file:
            times = [int(x) for x in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return times[3] + times[4], sum(times)


def time_when_quiet(
    calls: Mapping[str, Call], repeats: int, patience: float = 60.0
) -> tuple[dict[str, Timing], float]:
    """As ``time_on_cpu``, at a time when nobody else uses the processors if there is one.

    Returns:
        The timings, and how busy others were just before or after: where threads wait for each
        other, little is enough to spoil them. Of several attempts the quietest counts.
    """
    end = time.monotonic() + patience
    best: tuple[dict[str, Timing], float] | None = None
    while best is None or (best[1] > QUIET and time.monotonic() < end):
        busy = others()
        if busy > QUIET and time.monotonic() < end:
            continue
        found = time_on_cpu(calls, repeats)
        busy = max(busy, others())
        if best is None or busy < best[1]:
            best = found, busy
    return best


def keep_freed_memory() -> bool:
    """Stop the C library from giving freed memory back to the system; False if it cannot.

    By default glibc may give back what eager PyTorch frees and take it again in the next call, a
    page fault for every 4 KiB; whether it does depends on what else lies in the heap.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    return bool(mallopt(trim, 1 << 30)) and bool(mallopt(mmap, 1 << 30))


def time_on_gpu(call: Call, copies: int, graphed: bool, seconds: float = 0.1) -> Timing:
    """Time ``copies`` calls in a row, each with its own inputs, in or out of a CUDA graph.

    To be called on a stream of one's own, on which the forward pass ran too if ``call`` is a
    backward pass.
    """
    for i in range(max(copies, WARM_UPS)):
        call(i % copies)
    torch.cuda.synchronize()

    def every() -> None:
        for i in range(copies):
            call(i)

    run: Callable[[], object] = every
    if graphed:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            every()
        run = graph.replay
    took: list[float] = []
    begin = time.perf_counter()
    while len(took) < REPEATS or (time.perf_counter() - begin < seconds and len(took) < 200):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        took.append(start.elapsed_time(end) / 1e3)
    return summary(took[1:], copies)


def peak_bytes(call: Call) -> int:
    """GPU memory that a call needs beyond what is already held."""
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call(0)
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a large copy on this GPU: what bounds are made of."""
    source = torch.empty(1 << 29, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    timing = time_on_gpu(lambda _: target.copy_(source), 1, graphed=False)
    return 2 * source.numel() / timing.median_us * 1e6


def copies_beyond_cache(inputs_bytes: int) -> int:
    """How many copies of the inputs make four times the GPU's second-level cache."""
    cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return int(min(max(4 * cache // max(inputs_bytes, 1) + 1, 2), 512))
