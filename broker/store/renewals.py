"""Upholds `ports.Renewals`: due work from two indexes, taken by one replica at a time.

The rules are `domain/renewal.py`'s, in SQL. `now()` and not `clock_timestamp()`, which is another
time for each row: no index is looked up by that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from broker.domain.renewal import TAKEN_FOR, Planned
from broker.ports import Due
from broker.store.pool import Pool

_IS_DUE: Final[Mapping[Planned, tuple[str, str]]] = {
    Planned.IN_USE: (
        "state = 'ACTIVE' AND last_used_at >= refreshed_at AND renew_at <= now() - $3::interval",
        "renew_at",
    ),
    Planned.IDLE: ("state = 'ACTIVE' AND refreshed_at <= now() - $3::interval", "refreshed_at"),
}
"""Conditions that the index of each answers, and its column; $3: how old that must be."""

_IS_FREE: Final = """
    sealed_refresh_token IS NOT NULL AND doubt < 2
    AND (attempt_number IS NULL OR attempt_phase = 'UNKNOWN' AND attempt_deadline <= now())
    AND (failure_next_try_at IS NULL OR failure_next_try_at <= now())
    AND (renewal_taken_until IS NULL OR renewal_taken_until <= now())
"""

_TAKE: Final = {
    which: f"""
        WITH due AS (
            SELECT tenant, {column} AS since FROM grants WHERE {condition} AND {_IS_FREE}
            ORDER BY {column} LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE grants SET renewal_taken_until = now() + $2 FROM due
        WHERE grants.tenant = due.tenant
        RETURNING due.tenant, now() - due.since - $3::interval AS delay
    """
    for which, (condition, column) in _IS_DUE.items()
}


class PostgresRenewals:
    """Upholds `Renewals`."""

    def __init__(self, pool: Pool, *, keepalive: timedelta) -> None:
        """`keepalive`: after which an idle grant is rotated."""
        self._pool = pool
        self._ages = {Planned.IN_USE: timedelta(0), Planned.IDLE: keepalive}

    async def take(self, which: Planned, *, limit: int) -> Sequence[Due]:
        """Upholds the port."""
        rows = await self._pool.fetch(_TAKE[which], limit, TAKEN_FOR, self._ages[which])
        return [Due(tenant=row["tenant"], delay=row["delay"]) for row in rows]
