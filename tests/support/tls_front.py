"""TLS in front of a server that has none, as the wheels: what a client is shown is the test's.

PostgreSQL's clients ask first whether there is TLS, and are told so.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from support.certificates import Authority, Issued, dns
from support.proxy import Proxy, postgres_proxy, redis_proxy

_CHUNK: Final = 65_536

_QUESTION_BYTES: Final = 8
"""SSLRequest: its length and a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Where TLS is spoken."""

    port: int
    user: str
    path: str


def server_context(
    issued: Issued, folder: Path, *, callers: Authority | None = None
) -> ssl.SSLContext:
    """Returns what shows this certificate; `callers`: whose certificates a client must have."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issued.write(folder, "front"))
    if callers is not None:
        context.load_verify_locations(cadata=callers.cert.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def for_localhost(authority: Authority) -> Issued:
    """Returns a certificate for that name, and for no number."""
    return authority.issue(dns("localhost"))


@asynccontextmanager
async def redis_front(url: str, context: ssl.SSLContext) -> AsyncIterator[Front]:
    """Speaks TLS at once."""
    async with redis_proxy(url) as (between, _), _front(between, context) as port:
        yield Front(port=port, user="", path=urlsplit(url).path)


@asynccontextmanager
async def postgres_front(url: str, context: ssl.SSLContext) -> AsyncIterator[Front]:
    """Speaks TLS after the question for it."""
    parts = urlsplit(url)
    async with (
        postgres_proxy(url) as (between, _),
        _front(between, context, is_asked=True) as port,
    ):
        user = parts.netloc.rpartition("@")[0] or "postgres"
        yield Front(port=port, user=user, path=parts.path)


@asynccontextmanager
async def _front(
    between: Proxy, context: ssl.SSLContext, *, is_asked: bool = False
) -> AsyncIterator[int]:
    """Hands on to a proxy, which ends connections with the block."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if is_asked:
                await reader.readexactly(_QUESTION_BYTES)
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(context)
            answers, upstream = await asyncio.open_connection("127.0.0.1", between.port)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, upstream), name="requests")
                both.create_task(_pump(answers, writer), name="answers")
        # A client that refuses the certificate, or is refused, ends it in the middle of anything.
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if is_asked else context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    except OSError:  # the other end learns by the end of this one
        pass
    finally:
        writer.close()
