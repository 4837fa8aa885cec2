"""What is written down beside the grants: attempts at the token endpoint, and changes of state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from broker.domain.grant import Attempt, GrantState


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    ROTATED = "ROTATED"
    REFUSED = "REFUSED"
    NOT_PROCESSED = "NOT_PROCESSED"
    UNKNOWN = "UNKNOWN"
    MISCONFIGURED = "MISCONFIGURED"
    ABANDONED = "ABANDONED"
    """Never settled by its owner; noted by the one who claimed next."""

    LET_GO = "LET_GO"
    """Ended by its owner before anything was sent."""

    STALE = "STALE"
    """Tokens came, and the grant had moved on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One line of the history of attempts."""

    tenant: str
    attempt: Attempt
    outcome: AttemptOutcome
    ended_at: datetime
    http_status: int | None = None
    error: str = ""
    """An OAuth error or a transport fault's name; never prose, never a token."""

    duration: timedelta | None = None
    """On the wire."""

    generation_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantEvent:
    """One change of state, or one administrative act."""

    tenant: str
    actor: str
    """The caller's identity, or `broker` for what the broker concluded itself."""

    call: str
    """The RPC, or the write, that did it."""

    reason: str
    before: GrantState
    after: GrantState
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetAct:
    """One administrative act about the fleet, whatever it has changed."""

    actor: str
    call: str
    reason: str
    before: str
    """How the guard stood."""

    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event as it is on record."""

    at: datetime
    event: GrantEvent
