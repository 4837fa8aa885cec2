"""A real Redis Cluster of two masters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import redis.asyncio

from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from broker.dev.valkey import make_valkey
from support.fleet import until_true
from support.sentinels import tell

_HALVES: Final = ((0, 8191), (8192, 16383))


@asynccontextmanager
async def cluster(run: RunDirectory) -> AsyncIterator[tuple[str, str]]:
    """Starts one, and gives the addresses of both nodes once they are of one mind."""
    buses = [free_port() for _ in _HALVES]
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(_node(run, f"node-{number}", bus))
            for number, bus in enumerate(buses)
        ]
        for url, half in zip(urls, _HALVES, strict=True):
            async with redis.asyncio.from_url(url) as client:
                await tell(client, "CLUSTER", "ADDSLOTSRANGE", *half)
        async with redis.asyncio.from_url(urls[0]) as client:
            port = urlsplit(urls[1]).port or 0
            await tell(client, "CLUSTER", "MEET", "127.0.0.1", port, buses[1])
        for url in urls:
            await _until_whole(url)
        yield urls[0], urls[1]


@asynccontextmanager
async def _node(run: RunDirectory, name: str, bus: int) -> AsyncIterator[str]:
    kind = make_valkey(run, name, port=free_port())
    more = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--dir", kind.program.directory)
    program = replace(kind.program, command=[*kind.program.command, *more])
    kind = replace(kind, program=program)
    server = EmbeddedServer(run, kind)
    try:
        await server.start()
        yield server.url
    finally:
        await server.stop()
        kind.forget()


async def _until_whole(url: str) -> None:
    async with redis.asyncio.from_url(url) as client:
        # redis-py gives it no type
        execute: Callable[..., Awaitable[object]] = client.execute_command

        async def is_whole() -> bool:
            return "'cluster_state': 'ok'" in str(await execute("CLUSTER INFO"))

        await until_true(is_whole)
