"""How the fleet is, as values: for on-call, and without any tenant, caller or grant.

What cannot be found out is None. Decides nothing, and knows nobody who counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.domain.breaker import Breaker
from broker.domain.guard import Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyReport:
    """Something that the broker needs, as one replica sees it."""

    name: str
    is_healthy: bool
    checked_at: datetime | None
    last_error: str
    """A code; empty: there never was one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantCounts:
    """How many grants there are; each is in one of the first four."""

    active: int
    held: int
    reauth_required: int
    revoked: int
    in_doubt: int
    """Of the active ones: nobody knows how the last presentation ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """Planned rotations that did not happen in time."""

    count: int
    longest: timedelta | None
    """None: there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSign:
    """A replica that is alive."""

    name: str
    build: str
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetTally:
    """What PostgreSQL says of the whole fleet at a moment."""

    at: datetime
    counts: GrantCounts
    recent_refusals: int
    """Grants refused within the guard's window."""

    overdue: Overdue
    replicas: tuple[ReplicaSign, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """What one encryption key is used for."""

    key_id: int
    is_primary: bool
    is_available: bool
    """Whether the answering replica has it."""

    row_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """Everything of it."""

    home: str
    environment: str
    replica: str
    """That answers."""

    dependencies: tuple[DependencyReport, ...]
    breaker: Breaker | None
    guard: Guard
    """As last heard; of worth only beside a tally."""

    tally: FleetTally | None
    keys: tuple[KeyUse, ...]
    escrow_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLine:
    """An attempt that has ended, without saying whose."""

    ended_at: datetime
    kind: str
    """As `AttemptKind`, or what a newer release calls it."""

    replica: str
    outcome: str
    """As `AttemptOutcome`, likewise."""

    http_status: int | None
    error: str
    duration: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteCount:
    """How many attempts ended one way within one minute."""

    minutes_ago: int
    """0: within the last sixty seconds."""

    outcome: str
    """As `AttemptOutcome`, or what a newer release calls it."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptHour:
    """The attempts of the last hour, and the latest of all."""

    at: datetime
    minutes: tuple[MinuteCount, ...]
    latest: tuple[AttemptLine, ...]
    """Newest first."""
