"""Databases that live as long as a block: made on a server that allows it, dropped at the end.

Refuses to hide a leak: whoever still holds a connection when the block ends is named in the error.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

# A backend lives for some milliseconds after its client has closed the connection.
_LEAVE_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.01

_ASK_FROM: Final = "postgres"

_CLIENTS: Final = """
    SELECT format('pid %s (%s), last: %s', pid, coalesce(nullif(application_name, ''), 'unnamed'),
    query) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'
"""


class ConnectionsLeakedError(RuntimeError):
    """Connections to a database were still open at the end of its life."""


def on_database(url: str, name: str) -> str:
    """Returns the address of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def database_name(url: str) -> str:
    """Returns the name of the database in an address."""
    return urlsplit(url).path.lstrip("/")


async def connections_left(url: str) -> list[str]:
    """Waits until nobody is connected to the database; returns who still is after two seconds."""
    name = database_name(url)
    async with _administration(on_database(url, _ASK_FROM)) as connection:
        return await _left(connection, name)


async def _left(connection: asyncpg.Connection, name: str) -> list[str]:
    async def clients() -> list[str]:
        return [row[0] for row in await connection.fetch(_CLIENTS, name)]

    # By the clock: on Python 3.11 a driver's `wait_for` can swallow the one cancellation that
    # `asyncio.timeout` sends, and a loop would then never end.
    deadline = time.monotonic() + _LEAVE_SECONDS
    while (left := await clients()) and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
    return left


@asynccontextmanager
async def _administration(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def _drop(url: str, name: str) -> None:
    async with _administration(url) as connection:
        leaked = await _left(connection, name)
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    if leaked:
        raise ConnectionsLeakedError("; ".join(leaked))


@asynccontextmanager
async def fresh_database(url: str, *, template: str = "template0") -> AsyncIterator[str]:
    """Makes a copy of the template, gives its address, and drops it at the end.

    Raises:
        ConnectionsLeakedError: at the end, when a connection to it was left; it is dropped all the
        same. asyncpg.InsufficientPrivilegeError: the role of the address may not create databases.
    """
    name = f"broker_{secrets.token_hex(8)}"
    async with _administration(url) as connection:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield on_database(url, name)
    finally:
        await _drop(url, name)
