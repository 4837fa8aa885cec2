"""What is known of a grant, as plain values; a test names only what it is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from broker.domain.disclosure import Disclosure
from broker.domain.explanation import Known
from broker.domain.grant import Grant, GrantState
from broker.domain.history import AttemptOutcome, AttemptRecord, GrantEvent, RecordedEvent
from support.grants import THE_NOW, some_attempt, some_grant

A_MINUTE = timedelta(minutes=1)
AN_HOUR = timedelta(hours=1)


def known_of(grant: Grant | None = None) -> Known:
    """Returns what is known of a grant without any record."""
    return Known(grant=grant or some_grant(), now=THE_NOW)


def some_record(outcome: AttemptOutcome = AttemptOutcome.ROTATED) -> AttemptRecord:
    """Returns the line of attempt 12, which ended five minutes ago with HTTP 200."""
    return AttemptRecord(
        tenant="acme",
        attempt=replace(some_attempt(), number=12, started_at=THE_NOW - 6 * A_MINUTE),
        outcome=outcome,
        ended_at=THE_NOW - 5 * A_MINUTE,
        http_status=200,
    )


def some_event() -> RecordedEvent:
    """Returns a revocation by anna, an hour and a half ago."""
    event = GrantEvent(
        tenant="acme",
        actor="sa:anna",
        call="GrantService/RevokeGrant",
        reason="they left",
        before=GrantState.ACTIVE,
        after=GrantState.REVOKED,
        generation=8,
    )
    return RecordedEvent(at=THE_NOW - 90 * A_MINUTE, event=event)


def some_disclosure(caller: str = "sa:web", *, hours_ago: int = 3) -> Disclosure:
    """Returns generations 5 to 7 given to a caller, the last of them so long ago."""
    return Disclosure(
        tenant="acme",
        caller=caller,
        first_generation=5,
        last_generation=7,
        first_at=THE_NOW - 100 * AN_HOUR,
        last_at=THE_NOW - hours_ago * AN_HOUR,
    )
