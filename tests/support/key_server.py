"""A real HTTP server that publishes an issuer's keys, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class KeyServer:
    """Answers every request alike; `url` is where."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = 200
        self.requests = 0
        self.url = ""
        self.waiting = asyncio.Event()
        self._may_go = asyncio.Event()
        self._may_go.set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/openid/v1/jwks"

    async def close(self) -> None:
        """Listens no longer."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Keeps answers back until `let_go` or the end; `waiting` is set once one waits."""
        self._may_go.clear()
        yield
        self._may_go.set()

    def let_go(self) -> None:
        """Answers what waits."""
        self._may_go.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        self.waiting.set()
        await self._may_go.wait()
        head = f"HTTP/1.1 {self.status} Said\r\nContent-Length: {len(self.body)}\r\n"
        writer.write(
            f"{head}Location: /elsewhere\r\nConnection: close\r\n\r\n".encode() + self.body
        )
        try:
            await writer.drain()
        except ConnectionError:
            return  # whoever asked has heard enough
        finally:
            writer.close()


@asynccontextmanager
async def key_server(body: bytes) -> AsyncIterator[KeyServer]:
    """Runs one as long as the context lasts."""
    server = KeyServer(body)
    await server.start()
    try:
        yield server
    finally:
        await server.close()
