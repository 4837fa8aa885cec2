"""Real PostgreSQL and Valkey for development and tests: from wheels, in the run's directory.

A server takes no password: what keeps others out is the directory, mode 0700. (With `tcp=True` it
also listens on a free loopback port, which any local user can reach.) `TEST_DATABASE_URL` and
`TEST_REDIS_URL` stand in for the wheels on machines that they do not exist for.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from broker.dev.embedded import EmbeddedServer, Kind
from broker.dev.postgres import make_cluster
from broker.dev.rundir import RunDirectory
from broker.dev.valkey import make_valkey

DATABASE_VARIABLE: Final = "TEST_DATABASE_URL"
REDIS_VARIABLE: Final = "TEST_REDIS_URL"

# Below both ephemeral ranges (Linux from 32768, macOS from 49152): no outgoing connection takes the
# port of a server that is down for a moment.
_PORTS: Final = range(20_000, 32_000)


class NoFreePortError(RuntimeError):
    """A hundred ports in a row were taken."""


def free_port() -> int:
    """Returns a loopback port that nobody listens on at this moment.

    Raises:
        NoFreePortError: none was found.
    """
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise NoFreePortError


@asynccontextmanager
async def _running(run: RunDirectory, kind: Kind) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(run, kind)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
        kind.forget()


@asynccontextmanager
async def postgres_server(
    run: RunDirectory, *, name: str = "postgres", tcp: bool = False, fsync: bool = True
) -> AsyncIterator[EmbeddedServer]:
    """Starts PostgreSQL with an empty cluster; `name` (16 bytes) tells several of one run apart.

    Raises:
        WheelMissingError: the wheel is not installed.
        NoAccountError: root has nobody to run it as.
        ServerStartError: it does not start; the message has what it said.
    """
    kind = await make_cluster(run, name, port=free_port() if tcp else None, fsync=fsync)
    async with _running(run, kind) as server:
        yield server


@asynccontextmanager
async def valkey_server(
    run: RunDirectory, *, name: str = "valkey", tcp: bool = False
) -> AsyncIterator[EmbeddedServer]:
    """Starts an empty Valkey; `name` (16 bytes) tells several of one run apart.

    Raises:
        WheelMissingError: the wheel is not installed.
        ServerStartError: it does not start; the message has what it said.
    """
    async with _running(run, make_valkey(run, name, port=free_port() if tcp else None)) as server:
        yield server


@asynccontextmanager
async def database_address(
    run: RunDirectory, environ: Mapping[str, str], *, fsync: bool = True
) -> AsyncIterator[str]:
    """Gives the address of a server to make databases on: the environment's, else one started here.

    Raises:
        WheelMissingError: the wheel is not installed.
        NoAccountError: root has nobody to run it as.
        ServerStartError: it does not start; the message has what it said.
    """
    if url := environ.get(DATABASE_VARIABLE):
        yield url
        return
    async with postgres_server(run, fsync=fsync) as server:
        yield server.url


@asynccontextmanager
async def redis_address(run: RunDirectory, environ: Mapping[str, str]) -> AsyncIterator[str]:
    """Gives the address of a Redis or Valkey: the environment's, else one started here, over TCP.

    Raises:
        WheelMissingError: the wheel is not installed.
        ServerStartError: it does not start; the message has what it said.
    """
    if url := environ.get(REDIS_VARIABLE):
        yield url
        return
    async with valkey_server(run, tcp=True) as server:
        yield server.url
