"""What requests share: the model's thread, the limits, and which requests are accepted."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from las.serve.errors import SERVER, APIError
from las.serve.keys import Keys
from las.serve.metrics import Metrics
from las.serve.upload import Limits
from las.serve.worker import Worker

_RETRY_SECONDS = (1, 30)  # what a refused client is told to wait, at least and at most
_STOPPED_SECONDS = 10  # until another server has taken the place of one that stops


@dataclass
class Service:
    """A server's state; all but the worker belongs to its event loop."""

    worker: Worker
    models: Sequence[str]  # names of the one model
    metrics: Metrics
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=lambda: Keys([]))
    started: int = field(default_factory=lambda: int(time.time()))
    stopping: bool = False
    running: int = 0  # requests that are accepted and not answered
    _latency: float = 1.0  # seconds of recent requests
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def language(self) -> str:
        """What the model writes, by ISO 639-1."""
        return self.worker.transcriber.model.config.text.language

    @contextmanager
    def accepted(self) -> Iterator[None]:
        """A place in the queue, from the first byte of an upload to the answer.

        Raises:
            APIError: the queue is full, or the server is about to stop.
        """
        if self.stopping:
            what = "the server is stopping; send the request again"
            raise APIError(
                503, what, kind=SERVER, code="server_stopping", retry_after=_STOPPED_SECONDS
            )
        if self.running >= self.limits.queue:
            what = f"{self.running} requests are waiting, which is the limit; try again later"
            raise APIError(
                429, what, kind="requests", code="rate_limit_exceeded", retry_after=self._pause()
            )
        self._count(1)
        start = time.monotonic()
        try:
            yield
        finally:
            self._count(-1)
            passed = time.monotonic() - start
            self._latency += 0.1 * (passed - self._latency)
            self.metrics.latency.observe(passed)

    async def stop(self) -> None:
        """Accept nothing more, and wait until all that was accepted is answered."""
        self.stopping = True
        while self.running:
            self._idle.clear()
            await self._idle.wait()

    def _count(self, change: int) -> None:
        self.running += change
        self.metrics.queue.set(self.running)
        if not self.running:
            self._idle.set()

    def _pause(self) -> int:
        least, most = _RETRY_SECONDS
        return min(max(round(self._latency / 2), least), most)
