"""How callers got their tokens: flights, leases, waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Source(StrEnum):
    """Where a token that was handed out came from."""

    MEMORY = "memory"
    DATABASE = "database"
    REFRESH = "refresh"
    FALLBACK = "fallback"
    """Degraded: alive, and could not be renewed."""


class LeaseOutcome(StrEnum):
    """What Redis said. It decides nothing (law 6)."""

    ACQUIRED = "acquired"
    HELD = "held"
    UNREACHABLE = "unreachable"


class LeaseStanding(StrEnum):
    """How a lease stands, to whoever only looks."""

    FREE = "free"
    HELD = "held"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenServed:
    """A caller got a token."""

    source: Source
    degraded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightStarted:
    """The first caller of a tenant in this process starts a flight.

    Told in the context that the flight's task will run in, and in no caller's.
    """

    tenant: str
    flight: int
    """Its number in this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightJoined:
    """One more caller waits for a flight that another started; told in the caller's context."""

    tenant: str
    flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightEnded:
    """A flight has its answer, or its error."""

    tenant: str
    flight: int
    waiters: int
    duration: timedelta
    reason: str
    """`""` for a token, else the ErrorReason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseAnswered:
    """Redis was asked for a lease."""

    tenant: str
    outcome: LeaseOutcome
    duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitedForReplica:
    """A flight waited for another replica, which holds the lease or an attempt of the grant."""

    tenant: str
    duration: timedelta
