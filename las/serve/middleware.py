"""Around every request: it is counted, and read to its end before it is answered.

An answer to a request of which a part is still on its way is lost: the operating system resets a
connection that is closed with bytes unread, and the client then never sees why it was refused.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from las.serve.metrics import Metrics

_DISCARDED_BYTES = 1 << 27  # of a refused upload that are read, at most
_DISCARDED_SECONDS = 5.0


class Observed:
    """Counts requests by status.

    Args:
        app: the application inside.
        metrics: that they are counted in.
        endpoints: names of the paths that are told apart.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, endpoints: Mapping[str, str]) -> None:
        self.app, self.metrics, self.endpoints = app, metrics, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive)
        endpoint = self.endpoints.get(scope["path"], "other")

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(endpoint, message["status"]).inc()
                await body.discard()
            await send(message)

        try:
            await self.app(scope, body.receive, sent)
        except Exception:  # answered further out
            self.metrics.requests.labels(endpoint, 500).inc()
            raise


class _Body:
    """The body of a request, and whether some of it is left."""

    def __init__(self, headers: Headers, receive: Callable[[], Awaitable[Message]]) -> None:
        self._receive = receive
        self._left = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._asks = headers.get("expect", "").lower() == "100-continue"  # before it sends any

    async def receive(self) -> Message:
        self._asks = False
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._left = False
        return message

    async def discard(self) -> None:
        """Read what is left of it, within bounds."""
        if self._asks:
            return
        count = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARDED_SECONDS):
                while self._left and count < _DISCARDED_BYTES:
                    count += len((await self.receive()).get("body", b""))
