"""A TCP server that does what a test tells it, byte by byte, as no well-behaved server would."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

# Linger on, for no time: closing then sends a reset at once instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)
_PATIENCE_SECONDS = 20.0
_END_OF_HEAD = b"\r\n\r\n"


class Peer:
    """One connection, and all that came on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = b""
        """What came and was not taken."""

        self.heads: list[bytes] = []
        """Of the requests that were taken."""

        self.gone = asyncio.Event()
        """Set when the client has closed or reset the connection, if somebody reads."""

    async def _more(self) -> bool:
        try:
            chunk = await self._reader.read(65_536)
        except ConnectionError:
            chunk = b""
        self.received += chunk
        if not chunk:
            self.gone.set()
        return bool(chunk)

    async def head(self) -> bytes:
        """Waits for the head of the next request, and takes it."""
        while _END_OF_HEAD not in self.received and await self._more():
            pass
        head, _, self.received = self.received.partition(_END_OF_HEAD)
        self.heads.append(head)
        return head

    async def request(self) -> tuple[bytes, bytes]:
        """Waits for a whole request, and takes it: head and body."""
        head = await self.head()
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        while len(self.received) < length and await self._more():
            pass
        body, self.received = self.received[:length], self.received[length:]
        return head, body

    async def until_gone(self) -> None:
        """Reads on until the client ends the connection."""
        while await self._more():
            pass

    async def send(self, answer: bytes) -> None:
        """Sends bytes as they are."""
        self._writer.write(answer)
        await self._writer.drain()

    def close(self) -> None:
        """Ends the connection in good order."""
        self._writer.close()

    def reset(self) -> None:
        """Ends it with RST."""
        connected: socket.socket = self._writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()


Conduct = Callable[[Peer], Awaitable[None]]


class RawServer:
    """The server: where it is, and who came."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.connections = 0

    async def peer(self) -> Peer:
        """Waits for the next connection."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await self.peers.get()


@asynccontextmanager
async def raw_server(
    conduct: Conduct, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    """Serves every connection with `conduct`, and closes it after that."""
    scheme = "https" if tls else "http"

    async def serve(peer: Peer) -> None:
        try:
            with suppress(ConnectionError):
                await conduct(peer)
        finally:
            peer.close()

    async with asyncio.TaskGroup() as group:

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = Peer(reader, writer)
            server.connections += 1
            server.peers.put_nowait(peer)
            tasks.append(group.create_task(serve(peer), name="raw connection"))

        tasks: list[asyncio.Task[None]] = []
        listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        port = listener.sockets[0].getsockname()[1]
        server = RawServer(f"{scheme}://localhost:{port}" if tls else f"http://127.0.0.1:{port}")
        try:
            yield server
        finally:
            listener.close()
            for task in tasks:
                task.cancel()


def http_answer(status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Builds an answer; what is no bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + _END_OF_HEAD + content


async def silence(peer: Peer) -> None:
    """Reads, and never answers."""
    await peer.until_gone()


def answering(*answers: bytes) -> Conduct:
    """Answers one request after the other on each connection, then closes it."""

    async def conduct(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)

    return conduct
