"""The lines that are written beside the grants: settled attempts, and events."""

from __future__ import annotations

from typing import Final

from broker.domain.history import AttemptRecord, GrantEvent
from broker.store.statement import Statement, columns_and_values

# In a SELECT list PostgreSQL takes a placeholder for text unless it is told otherwise.
_ATTEMPT_TYPES: Final = {
    "tenant": "text",
    "number": "bigint",
    "attempt_id": "text",
    "kind": "text",
    "base_generation": "bigint",
    "phase": "text",
    "replica": "text",
    "started_at": "timestamptz",
    "deadline": "timestamptz",
    "ended_at": "timestamptz",
    "outcome": "text",
    "http_status": "integer",
    "error": "text",
    "duration": "interval",
    "generation_after": "bigint",
}

_EVENT_TYPES: Final = {
    "tenant": "text",
    "actor": "text",
    "call": "text",
    "reason": "text",
    "state_before": "text",
    "state_after": "text",
    "generation": "bigint",
}


def add_attempt(statement: Statement, ended: AttemptRecord) -> None:
    """Adds the line of a settled attempt, if the grant is written."""
    attempt = ended.attempt
    values = {
        "tenant": ended.tenant,
        "number": attempt.number,
        "attempt_id": attempt.attempt_id,
        "kind": attempt.kind.value,
        "base_generation": attempt.base_generation,
        "phase": attempt.phase.value,
        "replica": attempt.replica,
        "started_at": attempt.started_at,
        "deadline": attempt.deadline,
        "ended_at": ended.ended_at,
        "outcome": ended.outcome.value,
        "http_status": ended.http_status,
        "error": ended.error,
        "duration": ended.duration,
        "generation_after": ended.generation_after,
    }
    # From `written`: where the version has moved on, there is no line either.
    columns, bound = columns_and_values(statement.bind_all(values, _ATTEMPT_TYPES))
    statement.add(
        "attempt_line", f"INSERT INTO refresh_attempts ({columns})", f"SELECT {bound} FROM written"
    )


def add_event(statement: Statement, event: GrantEvent) -> None:
    """Adds the line of an event, if the grant is written."""
    values = {
        "tenant": event.tenant,
        "actor": event.actor,
        "call": event.call,
        "reason": event.reason,
        "state_before": event.before.value,
        "state_after": event.after.value,
        "generation": event.generation,
    }
    columns, bound = columns_and_values(statement.bind_all(values, _EVENT_TYPES))
    statement.add(
        "event_line", f"INSERT INTO grant_events ({columns})", f"SELECT {bound} FROM written"
    )
