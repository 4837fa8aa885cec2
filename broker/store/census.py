"""Counts all grants, for metrics: by one replica at a time, with one statement.

Its cost follows what is out of order, but for the number of all grants, which is counted in an
index. Decides nothing: two replicas that both count, or none, are an odd graph for a minute. Where
nobody has given a sign of life yet, whoever asks counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.grant import GrantState
from broker.store.fleet import ALIVE_FOR
from broker.store.pool import Pool

KEPT_LATE: Final = timedelta(days=1)
"""Beyond keep-alive: what is due on one day is spread over hours, and an outage of a night delays
it. Of the 60 days that Pleo keeps an unused token, 39 are left by default."""

# The filter comes first and once: for the other replicas nothing else is run. The statement's time,
# since no index is searched by what moves on meanwhile.
_COUNT: Final = """
    SELECT (SELECT count(*) FROM grants) AS grants,
    (SELECT json_object_agg(state, number) FROM (
        SELECT state, count(*) AS number FROM grants WHERE state <> 'ACTIVE' GROUP BY state
    ) AS others) AS not_active,
    (SELECT count(*) FROM grants WHERE attempt_number IS NOT NULL
        AND attempt_deadline < statement_timestamp()) AS unresolved,
    (SELECT count(*) FROM grants
        WHERE state = 'ACTIVE' AND refreshed_at < statement_timestamp() - $3::interval) AS at_risk,
    overdue.number, statement_timestamp() - overdue.since AS lag
    FROM (
        SELECT count(*) AS number, min(renew_at) AS since FROM grants
        WHERE state = 'ACTIVE' AND last_used_at - renew_at > interval '1 minute'
    ) AS overdue
    WHERE coalesce(
        (SELECT min(name) FROM replicas WHERE seen_at > statement_timestamp() - $2::interval), $1
    ) = $1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """How many grants there are, and what of them is out of order."""

    by_state: Mapping[GrantState, int]
    unresolved: int
    """Grants with an attempt whose deadline has passed and whose outcome nobody knows."""

    overdue: int
    """Grants given out more than a minute after their renewal time, and not rotated since. Last use
    is written in batches, some seconds late; an unused grant may be as old as it likes."""

    at_risk: int
    """ACTIVE grants whose refresh token is a day older than keep-alive lets any become: Pleo will
    have forgotten it at some point, and then the customer must consent again."""

    lag: timedelta
    """For how long the longest overdue of them has been so."""


async def take_census(pool: Pool, *, replica: str, keepalive: timedelta) -> Census | None:
    """Counts, where this replica's name is the first of those alive; else returns None.

    `keepalive`: after which a grant is rotated that nobody uses.

    Raises:
        StoreUnavailable: try again. Safe to cancel and to retry.
    """
    rows = await pool.fetch(_COUNT, replica, ALIVE_FOR, keepalive + KEPT_LATE)
    if not rows:
        return None
    (row,) = rows
    not_active: dict[str, int] = json.loads(row["not_active"] or "{}")
    by_state = {state: not_active.get(state.value, 0) for state in GrantState}
    by_state[GrantState.ACTIVE] = row["grants"] - sum(not_active.values())
    return Census(
        by_state=by_state,
        unresolved=row["unresolved"],
        overdue=row["number"],
        at_risk=row["at_risk"],
        lag=row["lag"] or timedelta(0),
    )
