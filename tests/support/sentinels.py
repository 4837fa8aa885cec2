"""A real Sentinel, and a master with a replica to fail over between."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import redis.asyncio
import redis.exceptions

from broker.dev.child import Program
from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port, valkey_server
from broker.dev.wheels import valkey_program

SERVICE = "main"

# Of a master that answers within a millisecond: a test waits for this long.
_DOWN_AFTER = 300

_PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class _SentinelKind:
    """One Sentinel. Upholds `embedded.Kind`."""

    program: Program
    port: int
    endings: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 5.0),)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def answers(self) -> bool:
        try:
            async with redis.asyncio.from_url(self.url, socket_timeout=2, retry=None) as client:
                return bool(await client.ping())
        except (OSError, redis.exceptions.RedisError):
            return False

    def may_start_later(self, last_words: str) -> bool:
        del last_words
        return False

    def forget(self) -> None:
        shutil.rmtree(self.program.directory, ignore_errors=True)


async def tell(client: redis.asyncio.Redis, *words: str | int) -> object:
    """Sends a command as it is written, and returns the answer."""
    execute: Callable[..., Awaitable[object]] = client.execute_command  # redis-py gives it no type
    return await execute(*words)


@asynccontextmanager
async def sentinel_server(run: RunDirectory, name: str = "sentinel") -> AsyncIterator[str]:
    """Starts one that watches nothing yet, and gives its address."""
    directory, port = run.path / name, free_port()
    directory.mkdir(mode=0o700)
    written = directory / "sentinel.conf"
    written.write_text(f"port {port}\nbind 127.0.0.1\ndir {directory}\n")
    program = Program(
        name=name,
        command=[valkey_program(), written, "--sentinel"],
        directory=directory,
        log=run.path / f"{name}.log",
    )
    kind = _SentinelKind(program=program, port=port)
    server = EmbeddedServer(run, kind)
    try:
        await server.start()
        yield kind.url
    finally:
        await server.stop()
        kind.forget()


@asynccontextmanager
async def watched(sentinel_url: str, master_url: str) -> AsyncIterator[str]:
    """Lets a Sentinel watch a master, and gives the address of the master through it."""
    sentinel, master = urlsplit(sentinel_url), urlsplit(master_url)
    service = f"{SERVICE}-{master.port}"
    async with redis.asyncio.from_url(sentinel_url) as client:
        await tell(client, "SENTINEL", "MONITOR", service, "127.0.0.1", master.port or 0, 1)
        for name, value in (("down-after-milliseconds", _DOWN_AFTER), ("failover-timeout", 3000)):
            await tell(client, "SENTINEL", "SET", service, name, value)
        try:
            number = master.path.lstrip("/") or "0"
            yield f"redis+sentinel://127.0.0.1:{sentinel.port}/{service}/{number}"
        finally:
            await tell(client, "SENTINEL", "REMOVE", service)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A master, its replica, and where they are found."""

    master: EmbeddedServer
    replica: EmbeddedServer
    sentinel_url: str
    url: str


@asynccontextmanager
async def watched_pair(run: RunDirectory) -> AsyncIterator[Watched]:
    """Starts a master, its replica and a Sentinel that knows both."""
    async with (
        valkey_server(run, name="sv-master", tcp=True) as master,
        valkey_server(run, name="sv-replica", tcp=True) as replica,
        sentinel_server(run, "sv-sentinel") as sentinel,
    ):
        await _follow(replica.url, master.url)
        async with watched(sentinel, master.url) as url:
            await _until_known(sentinel, f"{SERVICE}-{urlsplit(master.url).port}")
            yield Watched(master=master, replica=replica, sentinel_url=sentinel, url=url)


async def _follow(replica_url: str, master_url: str) -> None:
    async with redis.asyncio.from_url(master_url) as client:
        await client.config_set("repl-diskless-sync-delay", 0)  # else it waits 5 s for others
    async with redis.asyncio.from_url(replica_url) as client, asyncio.timeout(_PATIENCE_SECONDS):
        port = urlsplit(master_url).port or 0
        await tell(client, "REPLICAOF", "127.0.0.1", port)
        while (await client.info("replication"))["master_link_status"] != "up":
            await asyncio.sleep(_POLL_SECONDS)


async def _until_known(sentinel_url: str, service: str) -> None:
    """Waits until the Sentinel has heard of the replica: without, it fails over to nobody."""
    async with redis.asyncio.from_url(sentinel_url) as client, asyncio.timeout(_PATIENCE_SECONDS):
        while not await client.sentinel_slaves(service):
            await asyncio.sleep(_POLL_SECONDS)
