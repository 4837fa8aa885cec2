"""A proxy in front of PostgreSQL or Redis that misbehaves on request, in this process.

Faults hold for the connections there are and for those to come, until `heal`. Bytes are never
changed, only delayed, held back, dropped or cut off. It listens on one loopback port for its whole
life, also while it refuses.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from broker.dev.servers import free_port

_CHUNK = 65_536

Address = str | tuple[str, int]
"""A Unix socket's path, or host and port."""

Loss = Literal["swallow", "cut"]


# Linger on, for no time: closing then sends a reset at once instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)


class _End:
    """One side of a connection, as something to write to."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._told_the_end = False

    async def write(self, chunk: bytes) -> None:
        if not self._told_the_end:
            self._writer.write(chunk)
            await self._writer.drain()

    def tell_the_end(self) -> None:
        if not (self._told_the_end or self._writer.is_closing()):
            self._told_the_end = True
            self._writer.write_eof()

    def reset(self) -> None:
        if not self._writer.is_closing():
            opened: socket.socket = self._writer.get_extra_info("socket")
            if opened.family != socket.AF_UNIX:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Link:
    """One connection: both its sides."""

    client: _End
    server: _End

    def cut(self) -> None:
        self.client.reset()
        self.server.reset()


class Proxy:
    """Forwards bytes both ways until told otherwise. Made by `proxy`."""

    def __init__(self, upstream: Address) -> None:
        self._upstream = upstream
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._serving = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay_seconds = 0.0
        self._answer_bytes: int | None = None
        self._loss: Loss = "swallow"
        self._trigger: bytes | None = None
        self._after = 0
        self._lost = asyncio.Event()
        self.port = 0
        self.accepted = 0

    def __repr__(self) -> str:
        return (
            f"<Proxy :{self.port} to {self._upstream}, {len(self._links)} of {self.accepted} open>"
        )

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        return len(self._links)

    async def accept(self) -> None:
        """Listens (again)."""
        # While it refuses, an outgoing connection of somebody's would take any other port.
        self.port = self.port or free_port()
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def refuse(self) -> None:
        """Refuses new connections until `accept`; those that are open go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def cut(self) -> None:
        """Resets every open connection, at both ends."""
        for link in list(self._links):
            link.cut()

    def hold(self) -> None:
        """Forwards nothing any more, in neither direction: a network that has gone silent."""
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Lets every chunk wait, in each direction."""
        self._delay_seconds = seconds

    def half_close(self, end: Literal["client", "server"]) -> None:
        """Tells one end that the other will send no more; the other direction goes on."""
        for link in self._links:
            (link.client if end == "client" else link.server).tell_the_end()

    def lose_answers(
        self, *, after: int = 0, loss: Loss = "swallow", asked: bytes | None = None
    ) -> None:
        """Lets `after` more bytes of answers through in all, then drops or cuts off the rest.

        With `asked` the count begins when a request with these bytes in one chunk has been
        forwarded: so a COMMIT reaches the server and its acknowledgement is lost.
        """
        self._lost.clear()
        self._trigger, self._after, self._loss = asked, after, loss
        self._answer_bytes = after if asked is None else None

    async def answer_lost(self) -> None:
        """Waits until something of an answer has been dropped or cut."""
        await self._lost.wait()

    def heal(self) -> None:
        """Ends every fault but a refusal; what was held flows, what was dropped stays dropped."""
        self._delay_seconds = 0.0
        self._answer_bytes = self._trigger = None
        self._flowing.set()

    async def close(self) -> None:
        """Ends everything and waits until it has ended."""
        self._closed = True
        self.refuse()
        self.heal()
        self.cut()
        await self._idle.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _End(writer)
        self.accepted += 1
        self._serving += 1
        self._idle.clear()
        try:
            answers, upstream = await _connect(self._upstream)
            await self._forward(_Link(client=client, server=_End(upstream)), reader, answers)
        except OSError:  # nobody listens upstream: the client is told in the same way
            client.reset()
        finally:
            self._serving -= 1
            if not self._serving:
                self._idle.set()

    async def _forward(
        self, link: _Link, requests: asyncio.StreamReader, answers: asyncio.StreamReader
    ) -> None:
        self._links.add(link)
        try:
            if not self._closed:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forward_requests(link, requests), name="requests")
                    both.create_task(self._forward_answers(link, answers), name="answers")
        finally:
            link.cut()
            self._links.discard(link)

    async def _forward_requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):  # a side was reset: the other direction notices by itself
            while chunk := await reader.read(_CHUNK):
                await self._wait()
                self._notice(chunk)
                await link.server.write(chunk)
            await self._wait()
            link.server.tell_the_end()

    async def _forward_answers(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):  # likewise
            while chunk := await reader.read(_CHUNK):
                await self._wait()
                passed = self._passed(chunk)
                await link.client.write(passed)
                if passed != chunk:
                    self._lose(link)
            await self._wait()
            link.client.tell_the_end()

    async def _wait(self) -> None:
        await asyncio.sleep(self._delay_seconds)
        await self._flowing.wait()

    def _notice(self, request: bytes) -> None:
        if self._trigger is not None and self._trigger in request:
            self._trigger, self._answer_bytes = None, self._after

    def _passed(self, answer: bytes) -> bytes:
        if self._answer_bytes is None:
            return answer
        passed = answer[: self._answer_bytes]
        self._answer_bytes -= len(passed)
        return passed

    def _lose(self, link: _Link) -> None:
        self._lost.set()
        if self._loss == "cut":
            link.cut()


def _connect(upstream: Address) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    if isinstance(upstream, str):
        return asyncio.open_unix_connection(upstream)
    return asyncio.open_connection(*upstream)


@asynccontextmanager
async def proxy(upstream: Address) -> AsyncIterator[Proxy]:
    """Listens on a free loopback port in front of a server."""
    between = Proxy(upstream)
    await between.accept()
    try:
        yield between
    finally:
        await between.close()


@asynccontextmanager
async def postgres_proxy(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Gives a proxy and the address of the same database through it."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    port = int(query.get("port", [parts.port or 5432])[0])
    folder = query.get("host", [""])[0]
    upstream = f"{folder}/.s.PGSQL.{port}" if folder else (parts.hostname or "127.0.0.1", port)
    async with proxy(upstream) as between:
        user = parts.netloc.rpartition("@")[0] or "postgres"
        yield between, f"postgresql://{user}@127.0.0.1:{between.port}{parts.path}?sslmode=disable"


@asynccontextmanager
async def redis_proxy(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Gives a proxy and the address of the same logical database through it."""
    parts = urlsplit(url)
    on_socket = parts.scheme == "unix"
    upstream = (
        unquote(parts.path) if on_socket else (parts.hostname or "127.0.0.1", parts.port or 6379)
    )
    number = parse_qs(parts.query).get("db", ["0"])[0] if on_socket else parts.path.lstrip("/")
    async with proxy(upstream) as between:
        user = parts.netloc.rpartition("@")[0]
        yield between, f"redis://{user and user + '@'}127.0.0.1:{between.port}/{number}"
