"""What became of what was sent to Pleo."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from broker.domain.decision import Why
from broker.domain.grant import AttemptKind, Doubt
from broker.domain.history import AttemptOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptClaimed:
    """The right to present was committed (law 2)."""

    tenant: str
    kind: AttemptKind
    number: int
    base_generation: int
    doubt: Doubt
    duration: timedelta
    """What the claim took, with the reading that it may need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSending:
    """The next bytes carry the token."""

    tenant: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOverdue:
    """Pleo takes longer than a whole request may. The wire is listened to all the same."""

    tenant: str
    kind: AttemptKind
    number: int
    http_timeout: timedelta
    """What a request may take, from its first byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptAnswered:
    """Pleo answered, or never will."""

    tenant: str
    kind: AttemptKind
    number: int
    outcome: AttemptOutcome
    error: str
    http_status: int | None
    duration: timedelta
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSettled:
    """What the attempt led to is committed, or was not allowed to change anything."""

    tenant: str
    number: int
    outcome: AttemptOutcome
    generation: int
    duration: timedelta
    """From the answer until it was committed, however often that was tried."""

    not_allowed: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementDelayed:
    """PostgreSQL does not take a settlement; it is kept and tried again (law 3)."""

    tenant: str
    number: int
    holds_pair: bool
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EscrowWritten:
    """A pair that PostgreSQL did not take was sent to Redis, sealed."""

    tenant: str
    number: int
    is_acknowledged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EscrowAdopted:
    """An escrow was stored in its owner's place, or was not needed any more."""

    tenant: str
    number: int
    not_allowed: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EscrowsUnreachable:
    """A refresh in abandoned doubt could not look for escrows: "unreachable" is not "none"."""

    tenant: str
    number: int
    tries: int
    presents: bool
    """True: it has been so for so long that it presents all the same."""
