"""The daily partitions of the history of attempts: made ahead, dropped by age.

Dropping a partition costs nothing beside deleting its lines. Lines that find no partition go into
the default one, from where they move when theirs is made: nothing is lost where nobody does this
for a while. The role of the service may do neither itself: two functions of the schema do, in the
name of the role that migrated, within bounds of theirs.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

from broker.store.connecting import Connection
from broker.store.pool import Pool

DAYS_AHEAD: Final = 7
"""A week in which nothing has to run."""

# Any number that no other part of the broker uses; "history" on a telephone.
_LOCK: Final = 4478679


async def maintain_attempts(pool: Pool, *, retention: timedelta) -> None:
    """Makes the partitions of the coming days and drops those older than the retention.

    Any replica may do it at any time: where another is at it, nothing is done. Safe to cancel and
    to retry.

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
                await connection.execute("SELECT make_attempts_partition($1::date)", day)
        await connection.execute("SELECT drop_attempts_before($1::date)", today - retention)


async def _days(connection: Connection) -> set[date]:
    rows = await connection.fetch(
        "SELECT to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD') FROM pg_inherits "
        "WHERE inhparent = 'refresh_attempts'::regclass "
        r"AND inhrelid::regclass::text ~ '\d{8}$'"
    )
    return {row[0] for row in rows}
