"""What happened, for metrics, logs and traces. Facts carry no secret; observers decide nothing.

`service/` reports facts to an `Observer` and knows nothing of what becomes of them. A fact's class
is its event name; its fields are the log's fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from broker.domain.decision import Why
from broker.domain.grant import AttemptKind, Doubt, ReauthCause
from broker.domain.guard import GuardState
from broker.domain.history import AttemptOutcome


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReauthBecameRequired:
    """The customer must consent again."""

    tenant: str
    cause: ReauthCause
    provider_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRevoked:
    """A grant was revoked, and serves no token any more.

    Why is on record in the caller's own words (`GrantEvent`), which are in no log.
    """

    tenant: str
    generation: int
    by: str
    at_provider: bool
    """Whether the installation at Pleo is deleted next; what becomes of that the call tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionReported:
    """A caller says that Pleo's API rejected a token."""

    tenant: str
    generation: int
    verdict: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalEnded:
    """A rotation as planned work is over, or there was nothing to do any more."""

    tenant: str
    overdue_for: timedelta
    """When it was taken up."""

    reason: str
    """Why it failed; empty where it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDropped:
    """Copies of tokens in memory may be out of date, all or one tenant's, and are read again."""

    tenant: str | None
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLost:
    """A settlement was committed without its line in the history, which PostgreSQL refused."""

    tenant: str
    number: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFailed:
    """A background loop met an error and goes on."""

    loop: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesLoaded:
    """Files that may be replaced while we run were read, at the start or anew."""

    what: str
    """`tls`, `policy` or `jwks`."""

    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesRefused:
    """Files were replaced by something unusable; what was read before stays in force."""

    what: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedValueUnreadable:
    """A sealed value does not open although its key is there: moved, altered, or not ours."""

    tenant: str
    table: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRewrapped:
    """A rewrapping ended: all rows were gone through, or its caller left."""

    by: str
    reason: str
    key_id: int
    total: int
    rewrapped: int
    unreadable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectMet:
    """A defect: an error that no rule foresaw. The id is in the answer to the caller."""

    defect_id: str
    where: str
    error: BaseException


Fact: TypeAlias = (
    TokenServed
    | FlightStarted
    | FlightJoined
    | FlightEnded
    | LeaseAnswered
    | WaitedForReplica
    | AttemptClaimed
    | AttemptSending
    | AttemptOverdue
    | AttemptAnswered
    | AttemptSettled
    | SettlementDelayed
    | EscrowWritten
    | EscrowAdopted
    | EscrowsUnreachable
    | ReauthBecameRequired
    | GrantRevoked
    | RejectionReported
    | BreakerMoved
    | GuardMoved
    | PastChanged
    | WrittenBack
    | EvidenceUnread
    | MemoryDropped
    | RenewalEnded
    | HistoryLost
    | LoopFailed
    | FilesLoaded
    | FilesRefused
    | SealedValueUnreadable
    | KeysRewrapped
    | DefectMet
)
