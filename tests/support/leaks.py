"""Looks for secrets where none may lie in clear (law 7): a whole database, a whole Valkey, texts.

Finds each secret as it is and in the forms in which programs write things down. Knows nothing of
what the broker stores where: it reads everything.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote, quote_plus

import asyncpg
import redis.asyncio

from broker.lease.beside import running_beside

_TABLES: Final = """
    SELECT quote_ident(relname) FROM pg_class
    WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace
"""

_MARK: Final = "the monitor listens"
_OVER: Final = "the monitor ends"


def leaks(places: Mapping[str, str], secrets: Mapping[str, str]) -> list[str]:
    """Returns which secrets lie where; `secrets` by their values, and what each is."""
    return [
        f"{kind} in {place}"
        for secret, kind in secrets.items()
        for place, text in places.items()
        if any(form in text for form in _forms(secret))
    ]


def _forms(secret: str) -> set[str]:
    raw = secret.encode()
    return {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        raw.hex(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(),
    }


async def database_text(url: str) -> dict[str, str]:
    """Returns every row of every table as PostgreSQL shows it, bytes in hex, by table."""
    connection = await asyncpg.connect(url)
    try:
        names = [row[0] for row in await connection.fetch(_TABLES)]
        return {name: await _table_text(connection, name) for name in names}
    finally:
        await connection.close()


async def _table_text(connection: asyncpg.Connection, name: str) -> str:
    rows = await connection.fetch(f"SELECT t::text FROM {name} AS t")  # noqa: S608 - a table's name
    return "\n".join(row[0] for row in rows)


async def valkey_text(url: str) -> str:
    """Returns every key of a logical database, and what it holds.

    Raises:
        KeyError: one is of a type that this cannot read, and so cannot vouch for.
    """
    async with redis.asyncio.from_url(url, encoding="latin-1", decode_responses=True) as client:
        kept = [(key, await _value_of(client, key)) async for key in client.scan_iter()]
    return "\n".join(f"{key} {value}" for key, value in kept)


async def _value_of(client: redis.asyncio.Redis, key: str) -> object:
    readers: dict[str, Callable[[], Awaitable[object]]] = {
        "string": lambda: client.get(key),
        "hash": lambda: client.hgetall(key),
        "list": lambda: client.lrange(key, 0, -1),
        "set": lambda: client.smembers(key),
        "zset": lambda: client.zrange(key, 0, -1, withscores=True),
        "stream": lambda: client.xrange(key),
        "none": _gone,  # expired since it was listed
    }
    return await readers[str(await client.type(key))]()


async def _gone() -> None:
    pass


class Heard:
    """All that was asked of a Valkey, what was published included."""

    def __init__(self) -> None:
        self._commands: list[str] = []

    @property
    def text(self) -> str:
        """The commands, one a line."""
        return "\n".join(self._commands)

    async def listen(self, client: redis.asyncio.Redis) -> None:
        """Listens until it hears that it is over."""
        async with client.monitor() as monitor:
            async for told in monitor.listen():
                self._commands.append(str(told["command"]))
                if _OVER in self._commands[-1]:
                    break


@asynccontextmanager
async def overhearing(url: str) -> AsyncIterator[Heard]:
    """Hears every command while the block runs."""
    heard = Heard()
    async with (
        redis.asyncio.from_url(url) as client,
        redis.asyncio.from_url(url) as other,
        running_beside(heard.listen(client), name="monitor"),
    ):
        try:
            # Until the monitor listens, nobody says that it does.
            while _MARK not in heard.text:
                await other.echo(_MARK)
            yield heard
        finally:
            # On Python 3.11 redis-py can swallow the one cancellation there is.
            await other.echo(_OVER)


def named(kind: str, values: Iterable[str]) -> dict[str, str]:
    """Returns secrets of one kind, by their values."""
    return dict.fromkeys(filter(None, values), kind)
