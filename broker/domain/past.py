"""Which past of the database a row was read in, and what follows where it became another one.

A failover to a copy that lags behind, or a restore, takes commits back: claims, stored pairs,
consents. Nothing on a row says so, but the database as a whole does: another server, or another
timeline, than the one the fleet's row names. From then on

1. nobody claims for one attempt's span, since an attempt whose claim was lost may be on the wire;
2. each row not written since counts as abandoned: somebody may hold a newer pair;
3. numbers of attempts go on above all that may have been given before.

What somebody remembers is written back meanwhile (`recall_writes.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.domain.fleet import FleetState
from broker.domain.grant import Doubt, Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The past that a row belongs to, as the statement saw it that read or wrote the row."""

    live: str = ""
    """Of the server that answered; empty: a standby, which takes no writes."""

    known: str = ""
    """That the fleet's row names; empty: none yet."""

    since: datetime | None = None
    """When the fleet's row was last given another one; None: it never was."""

    @property
    def is_another(self) -> bool:
        """Whether commits may have been lost, and the fleet's row does not say so yet."""
        return bool(self.live and self.known and self.live != self.known)


def noticed(state: FleetState, live: str, now: datetime) -> FleetState:
    """Returns the fleet's row with the past that a server is found in; the first is no change."""
    if live in {"", state.timeline}:
        return state
    return replace(state, timeline=live, timeline_since=now if state.timeline else None)


def rewound(state: FleetState, now: datetime, *, noted_within: timedelta) -> FleetState:
    """Returns the fleet's row where a poll found older rows in what calls itself the same past.

    As when a snapshot of its disks is put back. Nothing changes where a change was noted within
    that time: an attempt's span, or for as long as whoever polls has not looked, if that is longer.
    """
    since = state.timeline_since
    if since is not None and now < since + noted_within:
        return state
    return replace(state, timeline_since=now)


def claims_from(past: Past, *, span: timedelta, now: datetime) -> datetime | None:
    """Returns when the last attempt that may have been lost is over; None: it is.

    `span`: from a claim to its deadline. A clock that has gone back by more holds nobody up: what
    is in doubt still waits for its quarantine.
    """
    if past.is_another:
        return now + span
    if past.since is None or not past.since - span <= now < past.since + span:
        return None
    return past.since + span


def in_doubt(grant: Grant, past: Past, *, span: timedelta, now: datetime) -> Grant:
    """Returns the row as it counts: with abandoned doubt where newer commits may have been lost.

    What was written within a span after the change was seen still counts as older: the clocks of
    two servers may differ by so much. Seconds since 1970 are numbers that no attempt had: a grant
    has fewer than one a second.
    """
    since = now if past.is_another else past.since
    if since is None:
        return grant
    is_older = grant.updated_at is None or grant.updated_at < since + span
    if not (past.is_another or is_older):
        return grant
    number = max(grant.last_attempt, int(since.timestamp()))
    return replace(grant, doubt=Doubt.ABANDONED, last_attempt=number)
