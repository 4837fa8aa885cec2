"""The daily partitions of the history of attempts: made ahead, dropped by age.

Dropping a partition costs nothing beside deleting its lines. Lines that find no partition go into
the default one, from where they move when theirs is made: nothing is lost where nobody does this
for a while. The role of the service may do neither itself: two functions of the schema do, in the
name of the role that migrated, within bounds of theirs.

A transaction for each day: a month that was left alone is caught up with a day at a time, and a day
that fails, because somebody reads the table for long, undoes no other. The next turn tries again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Final

from broker.store.connecting import Connection
from broker.store.pool import Pool

DAYS_AHEAD: Final = 7
"""A week in which nothing has to run."""

LONGEST_SECONDS: Final = 60
"""For one day: lines that found no partition are moved or deleted one by one, some hundred thousand
a second. Locks are waited for no longer than by any statement (`connecting.LOCK_TIMEOUT`), and the
table itself is only locked for what takes milliseconds."""

_CLIENT_SECONDS: Final = LONGEST_SECONDS + 5
"""Later than the server's own timeout, whose answer says more than silence."""

# Any number that no other part of the broker uses; "history" on a telephone.
_LOCK: Final = 4478679


async def maintain_attempts(pool: Pool, *, retention: timedelta) -> None:
    """Makes the partitions of the coming days and drops those older than the retention.

    Any replica may do it at any time: where another is at it, no more is done. Safe to cancel and
    to retry.

    Raises:
        StoreUnavailable: also when the table was in use for too long; what was done stays done.
    """
    # PostgreSQL's day, by whose clock the lines are dated, and not this machine's.
    (row,) = await pool.fetch("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today")
    today, present = row["today"], await _days(pool)
    for day in (today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)):
        if day not in present and not await _make(pool, day):
            return
    for before in _steps(present, today - retention):
        if not await _drop(pool, before):
            return


def _steps(present: set[date], before: date) -> Iterator[date]:
    """Gives up to where to drop, step by step.

    For each partition what has none and is older goes first: while the partition goes, the table is
    locked, and nothing must be left that takes long.
    """
    for day in sorted(each for each in present if each < before):
        yield day
        yield day + timedelta(days=1)
    yield before


async def _make(pool: Pool, day: date) -> bool:
    async with _alone(pool) as connection:
        if connection is None:
            return False
        # Asked again: another replica may have made it since.
        if day not in await _days(connection):
            query = "SELECT make_attempts_partition($1::date)"
            await connection.execute(query, day, timeout=_CLIENT_SECONDS)
        return True


async def _drop(pool: Pool, before: date) -> bool:
    async with _alone(pool) as connection:
        if connection is None:
            return False
        query = "SELECT drop_attempts_before($1::date)"
        await connection.execute(query, before, timeout=_CLIENT_SECONDS)
        return True


@asynccontextmanager
async def _alone(pool: Pool) -> AsyncIterator[Connection | None]:
    """Gives a transaction with time for a day; None where another replica is at it.

    Who finds another one leaves it all to that one, which does not stop before the last day.
    """
    async with pool.transaction() as connection:
        # Ends with the transaction: behind a pooler the next one may be another session's.
        if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1::bigint)", _LOCK):
            await connection.execute(f"SET LOCAL statement_timeout = '{LONGEST_SECONDS}s'")
            yield connection
        else:
            yield None


async def _days(connection: Connection | Pool) -> set[date]:
    rows = await connection.fetch(
        "SELECT to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD') FROM pg_inherits "
        "WHERE inhparent = 'refresh_attempts'::regclass "
        r"AND inhrelid::regclass::text ~ '\d{8}$'"
    )
    return {row[0] for row in rows}
