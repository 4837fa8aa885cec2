"""A logical database of Redis that is empty, with nobody on it, before a test and after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import redis.asyncio

# A server notices a closed connection at its next turn; two seconds is a leak.
_LEAVE_SECONDS = 2.0
_POLL_SECONDS = 0.01


class ClientsLeakedError(RuntimeError):
    """Connections to the logical database were still open at the end of the test."""


def on_logical_database(url: str, number: int) -> str:
    """Returns the address of another logical database on the same server."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        query = parse_qs(parts.query) | {"db": [str(number)]}
        return urlunsplit(parts._replace(query=urlencode(query, doseq=True)))
    return urlunsplit(parts._replace(path=f"/{number}"))


async def _others(client: redis.asyncio.Redis) -> dict[str, str]:
    own = await client.client_info()
    return {
        other["id"]: f"{other['name'] or 'unnamed'} at {other['addr']}, last: {other['cmd']}"
        for other in await client.client_list()
        if other["db"] == str(own["db"]) and other["id"] != str(own["id"])
    }


async def _left(client: redis.asyncio.Redis) -> dict[str, str]:
    # By the clock: on Python 3.11 redis-py's `wait_for` can swallow the one cancellation that
    # `asyncio.timeout` sends (seen: this loop never ended).
    deadline = time.monotonic() + _LEAVE_SECONDS
    while (left := await _others(client)) and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
    return left


@asynccontextmanager
async def clean_logical_database(url: str) -> AsyncIterator[None]:
    """Empties it before and after.

    Raises:
        ClientsLeakedError: at the end, when a connection to it was left.
    """
    async with redis.asyncio.from_url(url, single_connection_client=True) as client:
        await client.flushdb()
        yield
        leaked = await _left(client)
        for identity in leaked:  # or the next test would be blamed as well
            await client.client_kill_filter(_id=identity)
        await client.flushdb()
    if leaked:
        raise ClientsLeakedError("; ".join(leaked.values()))
