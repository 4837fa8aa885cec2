"""Connections to PostgreSQL: how many, and who may use one for how long.

A lost connection is noticed by whoever uses it next; the pool makes new ones on demand, so that
PostgreSQL may be down when the broker starts.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import asyncpg

from broker.domain.errors import StoreUnavailable
from broker.store.connecting import (
    COMMAND_SECONDS,
    TIMEOUTS,
    Connection,
    Dialer,
    refuse_unfit,
)
from broker.store.failures import store_failures
from broker.store.refusals import Refusals

ACQUIRE_SECONDS: Final = 2.0
"""A statement takes milliseconds: who waits longer for a connection waits for an outage."""

RELEASE_SECONDS: Final = 0.5
"""For a server that was asked to cancel a statement. It does in milliseconds, or is not there, and
then the connection is of no use any more."""

LONGEST_CALL_SECONDS: Final = ACQUIRE_SECONDS + COMMAND_SECONDS + RELEASE_SECONDS
"""What one statement may take, with a network that has gone silent. A holder of a pair must get
several into a quarantine (`domain.times.AttemptTimes.retry_within`)."""

IDLE_SECONDS: Final = 300.0
"""Shorter than what firewalls and load balancers remember, commonly 350 s and more."""

CLOSE_SECONDS: Final = 2.0
"""For taking leave of a server that may be gone. Statements that matter have ended before."""


APPLICATION_NAME: Final = "token-broker"
"""What PostgreSQL shows of our sessions."""


async def anybody(_connection: Connection) -> None:
    """Admits every database: for migrations, checks, and the first start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Where PostgreSQL is."""

    url: Callable[[], str]
    """Asked at every new connection: a password in a file may have changed."""

    tls: ssl.SSLContext | None = None
    """None: as the URL's `sslmode` says."""

    application_name: str = APPLICATION_NAME
    size: int = 10
    """Connections at most. A statement takes about a millisecond: ten serve thousands a second."""

    admit: Callable[[Connection], Awaitable[None]] = anybody
    """Asked for each new connection; raises `DatabaseUnfit` where it must not be used."""


class Pool:
    """Connections to lend. Made by `open_pool`."""

    def __init__(self, connections: asyncpg.Pool) -> None:
        self._connections = connections
        self.refusals = Refusals()
        """What PostgreSQL would not write, lately."""

    @property
    def opened(self) -> int:
        """How many connections there are."""
        return self._connections.get_size()

    @property
    def used(self) -> int:
        """How many of them are lent."""
        return self._connections.get_size() - self._connections.get_idle_size()

    @property
    def most(self) -> int:
        """How many there may be."""
        return self._connections.get_max_size()

    async def fetch(self, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Runs one statement in a transaction of its own, committed when this returns.

        Raises:
            StoreUnavailable: also when the acknowledgement of the commit was lost.
            asyncpg.PostgresError: PostgreSQL refused the statement; nothing was written.
        """
        with self._failures():
            async with self._lent() as connection:
                return await connection.fetch(query, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lends a connection with a transaction that commits at the end of the block.

        Raises the same as `fetch`, from the block as well.
        """
        with self._failures():
            async with self._lent() as connection, connection.transaction():
                yield connection

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            with store_failures():
                yield
        except StoreUnavailable as error:
            self.refusals.note(error)
            raise

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        connection = await self._connections.acquire(timeout=ACQUIRE_SECONDS)
        try:
            yield connection
        except asyncpg.ReadOnlySQLTransactionError:
            # A standby by now, or the reader that an address led to in a failover: kept, it would
            # refuse for as long as it is used.
            connection.terminate()
            raise
        finally:
            await self._connections.release(connection, timeout=RELEASE_SECONDS)


@asynccontextmanager
async def open_pool(settings: PoolSettings) -> AsyncIterator[Pool]:
    """Makes a pool, and closes its connections at the end. Connects to nothing by itself."""
    dialer = Dialer(
        tls=settings.tls,
        settings={"application_name": settings.application_name, **TIMEOUTS},
        command_seconds=COMMAND_SECONDS,
    )

    async def connect(*_: object, **__: object) -> asyncpg.Connection:
        return await dialer.dial(settings.url())

    async def admit(connection: Connection) -> None:
        await refuse_unfit(connection)
        await settings.admit(connection)

    connections = await asyncpg.create_pool(
        min_size=0,
        max_size=settings.size,
        max_inactive_connection_lifetime=IDLE_SECONDS,
        connect=connect,
        init=admit,
        reset=_leave_as_it_is,
    )
    try:
        yield Pool(connections)
    finally:
        with suppress(TimeoutError):  # asyncpg aborts what it could not close in order
            async with asyncio.timeout(CLOSE_SECONDS):
                await connections.close()


async def _leave_as_it_is(_connection: Connection) -> None:
    """Spares a round trip: nothing here changes a session."""
