"""Upholds `ports.Records`: reads the history of a tenant, and writes who was given its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from broker.domain.disclosure import Disclosure, HandedOut
from broker.domain.grant import Attempt, AttemptKind, AttemptPhase, GrantState
from broker.domain.history import AttemptOutcome, AttemptRecord, GrantEvent, RecordedEvent
from broker.ports import Recorded
from broker.store.pool import Pool

# Partitions of the last days only: a grant's attempts are months apart at the most, and what is
# older than the retention is gone.
_ATTEMPTS: Final = """
    SELECT * FROM refresh_attempts WHERE tenant = $1 ORDER BY number DESC LIMIT $2
"""

_EVENTS: Final = """
    SELECT * FROM grant_events WHERE tenant = $1 ORDER BY at DESC, id DESC LIMIT $2
"""

_DISCLOSURES: Final = """
    SELECT * FROM disclosures WHERE tenant = $1 ORDER BY last_at DESC, caller LIMIT $2
"""

_KEY_ID: Final = "SELECT key_id FROM grants WHERE tenant = $1"

# In one order, or two replicas that write the same rows would wait for each other.
_NOTE_HANDED_OUT: Final = """
    INSERT INTO disclosures AS known
    (tenant, caller, first_generation, last_generation, first_at, last_at)
    SELECT tenant, caller, first_generation, last_generation,
    statement_timestamp() - first_age, statement_timestamp() - last_age
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::interval[], $6::interval[])
    AS new (tenant, caller, first_generation, last_generation, first_age, last_age)
    ORDER BY tenant, caller
    ON CONFLICT (tenant, caller) DO UPDATE SET
    first_generation = least(known.first_generation, excluded.first_generation),
    last_generation = greatest(known.last_generation, excluded.last_generation),
    first_at = least(known.first_at, excluded.first_at),
    last_at = greatest(known.last_at, excluded.last_at)
"""


class PostgresRecords:
    """What is on record. Safe for any number of tasks at once."""

    def __init__(self, pool: Pool) -> None:
        """`pool`: of connections that were admitted."""
        self._pool = pool

    async def about(self, tenant: str, *, limit: int) -> Recorded:
        """Upholds the port."""
        attempts = await self._pool.fetch(_ATTEMPTS, tenant, limit)
        events = await self._pool.fetch(_EVENTS, tenant, limit)
        disclosures = await self._pool.fetch(_DISCLOSURES, tenant, limit)
        keys = await self._pool.fetch(_KEY_ID, tenant)
        return Recorded(
            attempts=tuple(map(_attempt_of, attempts)),
            events=tuple(map(_event_of, events)),
            disclosures=tuple(Disclosure(**row) for row in disclosures),
            key_id=keys[0]["key_id"] if keys else None,
        )

    async def note_handed_out(self, notes: Sequence[HandedOut]) -> None:
        """Upholds the port."""
        await self._pool.fetch(
            _NOTE_HANDED_OUT,
            [note.tenant for note in notes],
            [note.caller for note in notes],
            [note.first_generation for note in notes],
            [note.last_generation for note in notes],
            [note.first_age for note in notes],
            [note.last_age for note in notes],
        )


def _attempt_of(row: asyncpg.Record) -> AttemptRecord:
    return AttemptRecord(
        tenant=row["tenant"],
        attempt=Attempt(
            number=row["number"],
            attempt_id=row["attempt_id"],
            kind=AttemptKind(row["kind"]),
            base_generation=row["base_generation"],
            deadline=row["deadline"],
            phase=AttemptPhase(row["phase"]),
            started_at=row["started_at"],
            replica=row["replica"],
        ),
        outcome=AttemptOutcome(row["outcome"]),
        ended_at=row["ended_at"],
        http_status=row["http_status"],
        error=row["error"],
        duration=row["duration"],
        generation_after=row["generation_after"],
    )


def _event_of(row: asyncpg.Record) -> RecordedEvent:
    return RecordedEvent(
        at=row["at"],
        event=GrantEvent(
            tenant=row["tenant"],
            actor=row["actor"],
            call=row["call"],
            reason=row["reason"],
            before=GrantState(row["state_before"]),
            after=GrantState(row["state_after"]),
            generation=row["generation"],
        ),
    )
