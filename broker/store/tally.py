"""Counts of the whole fleet, for on-call: grants, attempts, replicas, keys. Names no tenant.

Each of them reads much, so none is on the way to a token; whoever asks sets a limit to the wait.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import asyncpg

from broker.domain.evidence import GUARD_WINDOW
from broker.domain.fleet_report import (
    AttemptHour,
    AttemptLine,
    FleetTally,
    GrantCounts,
    MinuteCount,
    Overdue,
    ReplicaSign,
)
from broker.store.fleet import ALIVE_FOR
from broker.store.pool import Pool

OVERDUE_AFTER: Final = timedelta(seconds=30)
"""As long as one attempt may take: what is late by less is on its way."""

LATEST: Final = 10
"""Attempts that are shown one by one: as many as a phone shows without much scrolling."""

# One that is in use is renewed ahead of its expiry, another is only kept alive.
_DUE_AT: Final = """
    CASE WHEN last_used_at > refreshed_at THEN renew_at ELSE refreshed_at + $2::interval END
"""

_TALLY: Final = f"""
    SELECT clock_timestamp() AS at,
    count(*) FILTER (WHERE state = 'ACTIVE') AS active,
    count(*) FILTER (WHERE state = 'HELD') AS held,
    count(*) FILTER (WHERE state = 'REAUTH_REQUIRED') AS reauth_required,
    count(*) FILTER (WHERE state = 'REVOKED') AS revoked,
    count(*) FILTER (WHERE state = 'ACTIVE' AND (doubt > 0
        OR attempt_phase = 'ARMED' AND attempt_deadline <= statement_timestamp())) AS in_doubt,
    count(*) FILTER (WHERE late > $3::interval) AS overdue,
    max(late) FILTER (WHERE late > $3::interval) AS longest,
    (SELECT count(DISTINCT tenant) FROM refresh_attempts
        WHERE ended_at > statement_timestamp() - $1::interval
        AND kind = 'REFRESH' AND outcome = 'REFUSED') AS recent_refusals
    FROM (
        SELECT state, doubt, attempt_phase, attempt_deadline,
        CASE WHEN state = 'ACTIVE' THEN statement_timestamp() - {_DUE_AT} END AS late
        FROM grants
    ) AS each_grant
"""

_REPLICAS: Final = """
    SELECT name, build, started_at, seen_at FROM replicas
    WHERE seen_at > clock_timestamp() - $1::interval ORDER BY name
"""

_MINUTES: Final = """
    SELECT floor(extract(epoch FROM statement_timestamp() - ended_at) / 60)::integer AS minutes_ago,
    outcome, count(*) AS count
    FROM refresh_attempts
    WHERE ended_at > statement_timestamp() - interval '1 hour' AND ended_at <= statement_timestamp()
    GROUP BY 1, 2 ORDER BY 1, 2
"""

_LATEST: Final = """
    SELECT ended_at, kind, replica, outcome, http_status, error, duration
    FROM refresh_attempts ORDER BY ended_at DESC LIMIT $1
"""

_NOW: Final = "SELECT clock_timestamp() AS at"


class PostgresTally:
    """Counts. Every method raises `StoreUnavailable`, and is safe to cancel and to retry."""

    def __init__(self, pool: Pool, *, keepalive: timedelta) -> None:
        """`keepalive`: after which a grant is rotated that nobody uses."""
        self._pool = pool
        self._keepalive = keepalive

    async def tally(self) -> FleetTally:
        """Counts grants and refusals, and lists the replicas that are alive."""
        (row,) = await self._pool.fetch(_TALLY, GUARD_WINDOW, self._keepalive, OVERDUE_AFTER)
        replicas = await self._pool.fetch(_REPLICAS, ALIVE_FOR)
        return FleetTally(
            at=row["at"],
            counts=GrantCounts(
                active=row["active"],
                held=row["held"],
                reauth_required=row["reauth_required"],
                revoked=row["revoked"],
                in_doubt=row["in_doubt"],
            ),
            recent_refusals=row["recent_refusals"],
            overdue=Overdue(count=row["overdue"], longest=row["longest"]),
            replicas=tuple(_replica(each) for each in replicas),
        )

    async def hour(self) -> AttemptHour:
        """Counts the attempts of the last hour by minute, and reads the latest."""
        (now,) = await self._pool.fetch(_NOW)
        minutes = await self._pool.fetch(_MINUTES)
        latest = await self._pool.fetch(_LATEST, LATEST)
        return AttemptHour(
            at=now["at"],
            minutes=tuple(_minute(each) for each in minutes),
            latest=tuple(_line(each) for each in latest),
        )


def _replica(row: asyncpg.Record) -> ReplicaSign:
    return ReplicaSign(
        name=row["name"],
        build=row["build"],
        started_at=row["started_at"],
        seen_at=row["seen_at"],
    )


def _minute(row: asyncpg.Record) -> MinuteCount:
    return MinuteCount(
        minutes_ago=row["minutes_ago"],
        outcome=row["outcome"],
        count=row["count"],
    )


def _line(row: asyncpg.Record) -> AttemptLine:
    return AttemptLine(
        ended_at=row["ended_at"],
        kind=row["kind"],
        replica=row["replica"],
        outcome=row["outcome"],
        http_status=row["http_status"],
        error=row["error"],
        duration=row["duration"],
    )
