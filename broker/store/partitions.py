"""The daily partitions of the history of attempts: made ahead, dropped by age.

Dropping a partition costs nothing beside deleting its lines. Lines that find no partition go into
the default one, from where they move when theirs is made: nothing is lost where nobody does this
for a while.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

from broker.store.pool import Connection, Pool

DAYS_AHEAD: Final = 7
"""A week in which nothing has to run."""

# Any number that no other part of the broker uses; "history" on a telephone.
_LOCK: Final = 4478679


async def maintain_attempts(pool: Pool, *, retention: timedelta) -> None:
    """Makes the partitions of the coming days and drops those older than the retention.

    Any replica may do it at any time: where another is at it, nothing is done. Needs a role that
    owns the table. Safe to cancel and to retry.

    Raises:
        StoreUnavailable: also when the table was in use for too long.
    """
    async with pool.transaction() as connection:
        # Ends with the transaction: behind a pooler the next one may be another session's.
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1::bigint)", _LOCK):
            return
        # PostgreSQL's day, by whose clock the lines are dated, and not this machine's.
        today: date = await connection.fetchval(
            "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date"
        )
        present = await _days(connection)
        for day in (today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD + 1)):
            if day not in present:
                await _make(connection, day)
        await _drop_before(connection, present, oldest=today - retention)


async def _days(connection: Connection) -> set[date]:
    rows = await connection.fetch(
        "SELECT to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD') FROM pg_inherits "
        "WHERE inhparent = 'refresh_attempts'::regclass "
        r"AND inhrelid::regclass::text ~ '\d{8}$'"
    )
    return {row[0] for row in rows}


async def _drop_before(connection: Connection, present: set[date], *, oldest: date) -> None:
    for day in sorted(present):
        if day < oldest:
            await connection.execute(f"DROP TABLE {_name(day)}")
    # What never had a partition of its own grows old as well.
    await connection.execute(
        "DELETE FROM refresh_attempts_default WHERE started_at < $1::date::timestamptz", oldest
    )


async def _make(connection: Connection, day: date) -> None:
    # Attaching locks the parent less than CREATE TABLE … PARTITION OF would, and refuses while
    # lines of that day lie in the default partition: they move first.
    name, after = _name(day), day + timedelta(days=1)
    # In UTC, whatever the session's time zone: days must not overlap, nor leave an hour out.
    await connection.execute(
        f"""
        CREATE TABLE {name} (LIKE refresh_attempts INCLUDING ALL);
        WITH moved AS (
            DELETE FROM refresh_attempts_default
            WHERE started_at >= '{day} 00:00Z' AND started_at < '{after} 00:00Z' RETURNING *
        )
        INSERT INTO {name} SELECT * FROM moved;
        ALTER TABLE refresh_attempts ATTACH PARTITION {name}
            FOR VALUES FROM ('{day} 00:00Z') TO ('{after} 00:00Z');
        """
    )


def _name(day: date) -> str:
    return f"refresh_attempts_{day:%Y%m%d}"
