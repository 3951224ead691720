"""The process: one socket, and an end at which nothing that was accepted is lost."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from las import standard_streams
from las.errors import LASError
from las.serve.app import create
from las.serve.service import Service

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CLOSING_SECONDS = 30  # for clients to take their answers, at the end


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes one that is free.

    Raises:
        LASError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        # Of create_server, whose message has the address again; of getaddrinfo they are negative.
        what = os.strerror(number) if number and number > 0 else str(error)
        cure = "choose another with --host and --port"
        raise LASError(f"{host}:{port}: cannot be listened on ({what}); {cure}") from None


def url(listening: socket.socket) -> str:
    """The address of a server's API."""
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def is_loopback(listening: socket.socket) -> bool:
    """Whether only programs of this machine reach it."""
    host = listening.getsockname()[0]
    return host == "::1" or host.startswith("127.")


def run(service: Service, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was accepted.

    A second signal ends the process at once.

    Args:
        service: what is served; its worker is started and stopped here.
        listening: see :func:`bind`.
        ready: called when requests are accepted.
    """
    # It tells of every body that is no form; the client is told by the answer.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    service.worker.start()
    asyncio.run(_serve(service, listening, ready))
    service.worker.stop()


class _Server(uvicorn.Server):
    """Leaves signals to :func:`_serve`: uvicorn would refuse connections at the first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(service: Service, listening: socket.socket, ready: Callable[[], None]) -> None:
    config = uvicorn.Config(
        create(service),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_CLOSING_SECONDS,
    )
    server = _Server(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, _asked_to_stop, number, service, stop)
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready()
    stopping = asyncio.create_task(_stop(server, service, stop))
    try:
        await serving
    finally:
        stopping.cancel()


async def _stop(server: uvicorn.Server, service: Service, stop: asyncio.Event) -> None:
    """After a signal requests get 503 until all that were accepted are answered."""
    await stop.wait()
    if service.running:
        standard_streams.complain(f"stopping: {service.running} requests are finished first")
    await service.stop()
    server.should_exit = True


def _asked_to_stop(number: int, service: Service, stop: asyncio.Event) -> None:
    if stop.is_set():
        standard_streams.complain(f"stopped: {service.running} requests are lost")
        os._exit(128 + number)
    service.stopping = True
    stop.set()
