"""What stands in for ``torch.cuda`` on a pretended GPU: streams, events, graphs and questions."""

import contextlib
import types
from collections.abc import Iterator
from typing import Any


class Host:
    """What the host does."""

    captures = False  # a CUDA graph
    waits = 0  # times that it waited for the GPU


class Stream:
    """A stream, in which everything has happened already."""

    cuda_stream = 0

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def _nothing(self, *_: object) -> None:
        pass

    wait_stream = wait_event = record_event = synchronize = _nothing


class Event:
    """An event; a microsecond after the one before."""

    count = 0

    def __init__(self, enable_timing: bool = False) -> None:
        self.timed = enable_timing

    def record(self, *_: object) -> None:
        Event.count += 1
        self.at = Event.count

    def elapsed_time(self, end: "Event") -> float:
        assert self.timed and end.timed
        return (end.at - self.at) / 1e3

    def synchronize(self) -> None:
        assert not Host.captures

    wait = synchronize


class Graph:
    """A CUDA graph; its replay is of no interest."""

    def replay(self) -> None:
        assert not Host.captures


@contextlib.contextmanager
def captured(graph: Graph, **_: object) -> Iterator[None]:
    """The body runs once, and may not wait for the GPU."""
    assert not Host.captures
    Host.captures = True
    try:
        yield
    finally:
        Host.captures = False


def _synchronize(*_: object) -> None:
    Host.waits += 1
    if Host.captures:
        raise RuntimeError("operation not permitted when stream is capturing: synchronize")


def stand_ins(processors: int) -> dict[str, Any]:
    """Members of ``torch.cuda`` by their names, for a GPU of so many multiprocessors."""
    properties = types.SimpleNamespace(
        name="Pretended GPU",
        multi_processor_count=processors,
        L2_cache_size=256,
        shared_memory_per_block_optin=232448,
        total_memory=1 << 33,
        major=9,
        minor=0,
    )
    same = contextlib.nullcontext
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "get_device_name": lambda *_: properties.name,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": lambda *_: properties,
        "is_bf16_supported": lambda *_: True,
        "synchronize": _synchronize,
        "empty_cache": lambda: None,
        "memory_allocated": lambda *_: 0,
        "max_memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "manual_seed": lambda _: None,
        "manual_seed_all": lambda _: None,
        "is_current_stream_capturing": lambda: Host.captures,
        "device_of": lambda _: same(),
        "device": lambda _: same(),
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": captured,
        "stream": lambda _: same(),
        "current_stream": lambda *_: Stream(),
        "set_stream": lambda _: None,
    }
