"""Which past of the database a statement runs in, told by the statement itself.

The server's identifier and the timeline that it writes, so that a failover, a restore to a point in
time and a dump that was read into another cluster are told apart; and the table's own identifier,
which a dump that was read into the same cluster changes. An ordinary role may ask for all of it.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from broker.domain.past import Past

# Until its first checkpoint, which may take minutes, a promoted standby shows its new timeline as
# the end of its recovery alone; after it, as the checkpoint's alone. In that order: a checkpoint
# may come between. The name of the current WAL file would tell too, but Aurora does not give it.
LIVE: Final = """
    (SELECT CASE WHEN pg_is_in_recovery() THEN '' ELSE concat_ws('/',
    (SELECT system_identifier FROM pg_control_system()),
    greatest((SELECT min_recovery_end_timeline FROM pg_control_recovery()),
    (SELECT timeline_id FROM pg_control_checkpoint())), 'grants'::regclass::oid) END)
"""

PAST_COLUMNS: Final = f"""
    {LIVE} AS past_live, (SELECT timeline FROM fleet) AS past_known,
    (SELECT timeline_since FROM fleet) AS past_since
"""
"""Everything that `past_of` reads."""


def past_of(row: asyncpg.Record) -> Past:
    """Returns the past of a row that has the `PAST_COLUMNS`."""
    return Past(live=row["past_live"], known=row["past_known"], since=row["past_since"])
