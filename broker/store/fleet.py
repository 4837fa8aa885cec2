"""Upholds `ports.FleetStore`: the fleet's row, signs of life, and counts from the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import asyncpg

from broker.domain.breaker import RATE_LIMITED, Breaker, BreakerCause
from broker.domain.evidence import BREAKER_WINDOW, GUARD_WINDOW, Evidence
from broker.domain.fleet import FleetState
from broker.domain.guard import Canary, Guard, GuardState
from broker.domain.history import AttemptOutcome, FleetAct
from broker.ports import AnsweredRefresh, FleetSnapshot, Guarded
from broker.store.past import LIVE
from broker.store.pool import Pool

ALIVE_FOR: Final = timedelta(seconds=30)
"""After its last sign a replica counts for so long: three beats of 10 s, so that one slow statement
does not change everybody's share of the rate."""

_COLUMNS: Final[Mapping[str, str]] = {
    "breaker_cause": "text",
    "breaker_code": "text",
    "breaker_since": "timestamptz",
    "breaker_probe_at": "timestamptz",
    "breaker_probes": "integer",
    "guard_state": "text",
    "guard_since": "timestamptz",
    "guard_until": "timestamptz",
    "guard_counted_from": "timestamptz",
    "guard_canary_tenant": "text",
    "guard_canary_generation": "bigint",
    "guard_canary_refused_at": "timestamptz",
    "guard_decided_by": "text",
    "guard_reason": "text",
    "timeline": "text",
    "timeline_since": "timestamptz",
}

_ALIVE: Final = f"""
    (SELECT count(*) FROM replicas
    WHERE seen_at > clock_timestamp() - interval '{ALIVE_FOR.total_seconds()} seconds')
"""

_ABOUT: Final = f"""
    version, clock_timestamp() AS read_at, {_ALIVE} AS alive, {LIVE} AS live
"""

_READ: Final = f"SELECT {', '.join(_COLUMNS)}, {_ABOUT} FROM fleet"

_SET: Final = ", ".join(
    f"{column} = ${place}::{kind}" for place, (column, kind) in enumerate(_COLUMNS.items(), start=3)
)

_APPLY: Final = f"""
    UPDATE fleet SET version = version + 1, {_SET} WHERE version = $1 AND {LIVE} = $2
    RETURNING {_ABOUT}
"""

# No tenant has that name (`fields.check_tenant`); policies say it for what is about all.
_NOTE: Final = """
    INSERT INTO grant_events (tenant, actor, call, reason, state_before, state_after, generation)
    VALUES ('*', $1, $2, $3, $4, $5, 0)
"""

_BEAT: Final = """
    WITH mine AS (
        INSERT INTO replicas (name, build, seen_at) VALUES ($1, $2, clock_timestamp())
        ON CONFLICT (name) DO UPDATE SET build = $2, seen_at = clock_timestamp()
    )
    DELETE FROM replicas WHERE seen_at < clock_timestamp() - interval '1 day' AND name <> $1
"""

# The attempt that is asked about is counted in Python, whether its line is written yet or not. The
# statement's time, since no index is searched by what moves on meanwhile: the whole history would
# be read.
_WEIGH: Final = """
    SELECT clock_timestamp() AS at,
    count(DISTINCT tenant) FILTER (WHERE in_window AND outcome = 'REFUSED' AND tenant <> $1
        AND cause IS DISTINCT FROM 'ROTATION_LOST')
        AS refused_grants,
    count(*) FILTER (WHERE in_window AND outcome IN ('REFUSED', 'ROTATED', 'STALE')) AS answered,
    count(DISTINCT tenant) FILTER (WHERE is_new AND outcome = 'UNKNOWN' AND tenant <> $1)
        AS unknown_grants,
    count(DISTINCT tenant) FILTER (WHERE is_new AND error = $5 AND tenant <> $1) AS limited_grants,
    count(*) FILTER (WHERE is_new AND (http_status IS NOT NULL OR outcome = 'UNKNOWN')) AS sent
    FROM (
        SELECT tenant, outcome, error, http_status,
        CASE outcome WHEN 'REFUSED' THEN
            (SELECT reauth_cause FROM grants WHERE grants.tenant = refresh_attempts.tenant)
        END AS cause,
        -- A decision that lies ahead was made before the clock was set back.
        ended_at > (SELECT CASE WHEN guard_counted_from <= statement_timestamp()
            THEN guard_counted_from ELSE '-infinity' END FROM fleet) AS in_window,
        ended_at > statement_timestamp() - $4::interval AS is_new
        FROM refresh_attempts
        WHERE ended_at > statement_timestamp() - $3::interval
        AND kind = 'REFRESH' AND NOT (tenant = $1 AND number = $2)
    ) AS recent
"""

_KEPT: Final = "state = 'REAUTH_REQUIRED' AND pair_generation IS NOT NULL"

_WINDOW: Final = f"interval '{GUARD_WINDOW.total_seconds()} seconds'"

# Each by an index that holds little else: what was given up lies there for days.
_TENANTS: Final[Mapping[Guarded, str]] = {
    Guarded.HELD: "SELECT tenant FROM grants WHERE state = 'HELD' ORDER BY reauth_since LIMIT $1",
    Guarded.CERTAIN: "SELECT tenant FROM grants WHERE state = 'HELD' AND doubt = 0 "
    "AND reauth_cause = 'EXPIRED_OR_REVOKED' AND pair_generation IS NOT NULL "
    "ORDER BY reauth_since LIMIT $1",
    Guarded.BELIEVED: f"SELECT tenant FROM grants WHERE {_KEPT} AND quarantined_until IS NULL "
    "ORDER BY reauth_since DESC LIMIT $1",
    Guarded.GIVEN_UP: f"SELECT tenant FROM grants WHERE {_KEPT} "
    "AND quarantined_until > statement_timestamp() ORDER BY quarantined_until LIMIT $1",
    Guarded.DEAD: f"(SELECT tenant FROM grants WHERE {_KEPT} AND quarantined_until IS NULL "
    f"AND reauth_since <= statement_timestamp() - {_WINDOW} ORDER BY reauth_since LIMIT $1) "
    f"UNION ALL (SELECT tenant FROM grants WHERE {_KEPT} "
    "AND quarantined_until <= statement_timestamp() ORDER BY quarantined_until LIMIT $1) LIMIT $1",
}


class PostgresFleet:
    """The fleet's row. Safe for any number of tasks at once."""

    def __init__(self, pool: Pool) -> None:
        """`pool`: of connections that were admitted."""
        self._pool = pool

    async def read(self) -> FleetSnapshot:
        """Upholds the port."""
        (row,) = await self._pool.fetch(_READ)
        return _snapshot(row, _state_of(row))

    async def apply(self, before: FleetSnapshot, after: FleetState) -> FleetSnapshot | None:
        """Upholds the port."""
        values = _values_of(after)
        arguments = [values[column] for column in _COLUMNS]
        rows = await self._pool.fetch(_APPLY, before.version, before.live, *arguments)
        return _snapshot(rows[0], after) if rows else None

    async def note(self, act: FleetAct) -> None:
        """Upholds the port."""
        await self._pool.fetch(_NOTE, act.actor, act.call, act.reason, act.before, act.after)

    async def beat(self, replica: str, build: str) -> None:
        """Upholds the port."""
        await self._pool.fetch(_BEAT, replica, build)

    async def weigh(self, answered: AnsweredRefresh) -> Evidence:
        """Upholds the port."""
        (row,) = await self._pool.fetch(
            _WEIGH, answered.tenant, answered.number, GUARD_WINDOW, BREAKER_WINDOW, RATE_LIMITED
        )
        is_definite = answered.outcome in {AttemptOutcome.REFUSED, AttemptOutcome.ROTATED}
        return Evidence(
            at=row["at"],
            refused_grants=row["refused_grants"] + answered.is_sure_refusal,
            answered=row["answered"] + is_definite,
            unknown_grants=row["unknown_grants"] + (answered.outcome is AttemptOutcome.UNKNOWN),
            limited_grants=row["limited_grants"] + (answered.error == RATE_LIMITED),
            sent=row["sent"] + 1,
        )

    async def tenants(self, which: Guarded, *, limit: int) -> Sequence[str]:
        """Upholds the port."""
        rows = await self._pool.fetch(_TENANTS[which], limit)
        return [row["tenant"] for row in rows]


def _snapshot(row: asyncpg.Record, state: FleetState) -> FleetSnapshot:
    return FleetSnapshot(
        state=state,
        version=row["version"],
        read_at=row["read_at"],
        alive=row["alive"],
        live=row["live"],
    )


def _values_of(state: FleetState) -> dict[str, object]:
    breaker, guard, canary = state.breaker, state.guard, state.guard.canary
    return {
        "breaker_cause": breaker and breaker.cause.value,
        "breaker_code": breaker and breaker.code,
        "breaker_since": breaker and breaker.since,
        "breaker_probe_at": breaker and breaker.probe_at,
        "breaker_probes": breaker and breaker.probes,
        "guard_state": guard.state.value,
        "guard_since": guard.since,
        "guard_until": guard.until,
        "guard_counted_from": guard.counted_from,
        "guard_canary_tenant": canary and canary.tenant,
        "guard_canary_generation": canary and canary.generation,
        "guard_canary_refused_at": canary and canary.refused_at,
        "guard_decided_by": guard.decided_by,
        "guard_reason": guard.reason,
        "timeline": state.timeline,
        "timeline_since": state.timeline_since,
    }


def _state_of(row: asyncpg.Record) -> FleetState:
    return FleetState(
        breaker=_breaker_of(row),
        guard=Guard(
            state=GuardState(row["guard_state"]),
            since=row["guard_since"],
            until=row["guard_until"],
            counted_from=row["guard_counted_from"],
            canary=_canary_of(row),
            decided_by=row["guard_decided_by"],
            reason=row["guard_reason"],
        ),
        timeline=row["timeline"],
        timeline_since=row["timeline_since"],
    )


def _breaker_of(row: asyncpg.Record) -> Breaker | None:
    if row["breaker_cause"] is None:
        return None
    return Breaker(
        cause=BreakerCause(row["breaker_cause"]),
        code=row["breaker_code"],
        since=row["breaker_since"],
        probe_at=row["breaker_probe_at"],
        probes=row["breaker_probes"],
    )


def _canary_of(row: asyncpg.Record) -> Canary | None:
    if row["guard_canary_tenant"] is None:
        return None
    return Canary(
        tenant=row["guard_canary_tenant"],
        generation=row["guard_canary_generation"],
        refused_at=row["guard_canary_refused_at"],
    )
