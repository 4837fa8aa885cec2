"""A real Redis Cluster of two masters, which share the slots."""

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
from broker.lease.slot import owner_of_slot
from support.fleet import until_true
from support.sentinels import tell

_HALVES: Final = ((0, 8191), (8192, 16383))


@asynccontextmanager
async def cluster(run: RunDirectory, name: str = "node") -> AsyncIterator[tuple[str, str]]:
    """Starts one; gives both addresses when the nodes are of one mind, our slot's owner first."""
    buses = [free_port() for _ in _HALVES]
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(_node(run, f"{name}-{number}", bus))
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
        yield await _owner_first(urls[0], urls[1])


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


async def _owner_first(one: str, other: str) -> tuple[str, str]:
    async with redis.asyncio.from_url(one, protocol=2) as client:
        _, port = owner_of_slot(await tell(client, "CLUSTER SLOTS"), asked="127.0.0.1")
    return (one, other) if urlsplit(one).port == port else (other, one)


@asynccontextmanager
async def in_cluster(direct_url: str, near: str) -> AsyncIterator[str]:
    """Lets a node tell of itself that it is at another address, and gives that of the cluster."""
    port = urlsplit(near).port or 0
    async with redis.asyncio.from_url(direct_url) as client:
        await client.config_set("cluster-announce-port", port)
        try:
            yield f"redis+cluster://127.0.0.1:1,127.0.0.1:{port}"
        finally:
            await client.config_set("cluster-announce-port", 0)
            await client.flushdb()


async def _until_whole(url: str) -> None:
    async with redis.asyncio.from_url(url) as client:
        # redis-py gives it no type
        execute: Callable[..., Awaitable[object]] = client.execute_command

        async def is_whole() -> bool:
            return "'cluster_state': 'ok'" in str(await execute("CLUSTER INFO"))

        await until_true(is_whole)
