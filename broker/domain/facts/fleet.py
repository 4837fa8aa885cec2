"""What concerns all replicas: the breaker, the guard, and a PostgreSQL that lost commits."""

from __future__ import annotations

from dataclasses import dataclass

from broker.domain.decision import Why
from broker.domain.guard import GuardState


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerMoved:
    """This replica has heard that the fleet's breaker opened, closed, or has another cause."""

    cause: str
    """A `BreakerCause`; `""`: closed."""

    code: str
    """The OAuth error or HTTP status that opened it, or keeps it open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardMoved:
    """This replica has heard that the fleet guard stands otherwise."""

    state: GuardState
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PastChanged:
    """The database is another one than before: commits may be lost, and claims wait."""

    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBack:
    """A row that PostgreSQL had lost was written again from memory, or need not be."""

    tenant: str
    generation: int
    not_allowed: Why | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceUnread:
    """An answer was not weighed for guard and breaker, because PostgreSQL was away."""

    tenant: str
    number: int
