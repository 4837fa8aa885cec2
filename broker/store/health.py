"""What readiness and `doctor` ask of the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.store.clock import ClockReading, look
from broker.store.pool import Pool
from broker.store.schema import SchemaFitness, read_schema

# Both: a standby is in recovery, and a managed server whose disk is full is set read-only.
_PROBE: Final = """
    SELECT clock_timestamp() AS clock,
    current_setting('transaction_read_only') = 'off' AND NOT pg_is_in_recovery() AS is_writable
"""

# From one key to the next by the index on it: PostgreSQL does not skip equal entries by itself, and
# would read a million to find that they are all the same.
_EACH_KEY_OF_GRANTS: Final = """
    SELECT min(key_id) AS key_id FROM grants
    UNION ALL
    SELECT (SELECT min(key_id) FROM grants WHERE key_id > each_key.key_id) FROM each_key
    WHERE key_id IS NOT NULL
"""

_KEYS_IN_USE: Final = f"""
    WITH RECURSIVE each_key AS ({_EACH_KEY_OF_GRANTS})
    SELECT key_id FROM home
    UNION SELECT key_id FROM each_key WHERE key_id IS NOT NULL
    UNION SELECT key_id FROM authorizations WHERE key_id IS NOT NULL
    UNION SELECT key_id FROM imports WHERE key_id IS NOT NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """How the database stands."""

    schema_version: int
    """0: no schema."""

    fitness: SchemaFitness
    is_writable: bool
    clock: ClockReading


async def probe(pool: Pool) -> StoreStatus:
    """Asks how the database stands.

    Raises:
        StoreUnavailable: it does not answer.
    """
    version, fitness = await read_schema(pool)
    before = look()
    (row,) = await pool.fetch(_PROBE)
    clock = ClockReading(theirs=row["clock"], before=before, after=look())
    return StoreStatus(
        schema_version=version,
        fitness=fitness,
        is_writable=row["is_writable"],
        clock=clock,
    )


async def key_ids_in_use(pool: Pool) -> frozenset[int]:
    """Returns the keys that rows are sealed under. Its cost follows the number of keys.

    Raises:
        StoreUnavailable: try again.
    """
    return frozenset(row["key_id"] for row in await pool.fetch(_KEYS_IN_USE))
