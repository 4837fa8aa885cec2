"""Marking a database that was put back from a backup, for the brokers that start on it.

A restore to a point in time, a failover and a dump that was read back in show by themselves
(`past.py`). A copy of the disks does not: it bears the names that it bore when it was made, and
where no replica runs on, nobody remembers a later transaction. Then refresh tokens that were
rotated after the backup would be taken for good ones, and Pleo's refusals for customers who left.
"""

from __future__ import annotations

from typing import Final

from broker.store.connecting import Connection

# Of the past that the broker last worked with: any name that no server has makes it another one.
_MARK: Final = "UPDATE fleet SET timeline = 'restored', version = version + 1"

RESTAMP: Final = """
    UPDATE grants SET changed_xid = pg_current_xact_id()
    WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())
"""
"""Rows that were restored into another cluster bear ids from that one's future: everybody would be
told of them at every look, until the ids are reached."""


async def mark_restored(connection: Connection) -> None:
    """Has the brokers take it for another past; the schema is up to date. Safe to repeat."""
    await connection.execute(_MARK)
    await connection.execute(RESTAMP)
