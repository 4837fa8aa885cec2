"""A grant: what one tenant's Pleo company consented to, as the row in PostgreSQL says it.

The row is the only authority. Attempt numbers and generations grow per tenant and never restart, so
a revoked grant stays as a tombstone. Which write may change a grant, and how, is in `decision.py`,
`refresh_writes.py` and `consent_writes.py` alone; this file only says what a grant is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

from broker.domain.secret import AccessToken, RefreshToken


class GrantState(StrEnum):
    """Where a grant stands. `decision.TRANSITIONS` lists every change that can happen."""

    UNCONNECTED = "UNCONNECTED"
    """No consent was ever stored. The row exists to carry the claim of a first consent; callers
    see no grant."""

    ACTIVE = "ACTIVE"
    """The pair is ours to use."""

    HELD = "HELD"
    """Refused by Pleo, but the fleet guard doubts it. Shown to callers as ACTIVE."""

    REAUTH_REQUIRED = "REAUTH_REQUIRED"
    """The customer must consent again (law 5)."""

    REVOKED = "REVOKED"
    """Ended by us. A tombstone: its numbers live on."""


class ReauthCause(StrEnum):
    """Why a customer must consent again."""

    EXPIRED_OR_REVOKED = "EXPIRED_OR_REVOKED"
    """Pleo refused a refresh token of which nothing was in doubt."""

    ROTATION_LOST = "ROTATION_LOST"
    """Pleo refused it after an attempt whose answer never arrived, which may have held the newer
    token."""

    OPERATOR = "OPERATOR"
    """An operator ended it."""


class ScopesSource(StrEnum):
    """Who says what the scopes of a grant are."""

    REQUESTED = "REQUESTED"
    """The token response was silent, which means: as requested (RFC 6749 §5.1)."""

    TOKEN_RESPONSE = "TOKEN_RESPONSE"  # noqa: S105 - names an answer, holds no secret
    INTROSPECTION = "INTROSPECTION"

    IMPORTED = "IMPORTED"
    """The caller of ImportGrant said so."""


class AttemptKind(StrEnum):
    """What is presented to the token endpoint."""

    REFRESH = "REFRESH"
    EXCHANGE = "EXCHANGE"

    IMPORT = "IMPORT"
    """A refresh token that a caller handed over; fenced like an exchange, sent like a refresh."""


class AttemptPhase(StrEnum):
    """How far an attempt may have got."""

    CLAIMED = "CLAIMED"
    """Owned, nothing sent: the quarantine after an abandoned attempt is running."""

    ARMED = "ARMED"
    """May be on the wire."""

    UNKNOWN = "UNKNOWN"
    """Its owner says: sent, the wire is closed, no readable answer came, I hold nothing."""


class Doubt(IntEnum):
    """Whether a pair that we never saw may exist.

    Rises at claims and where an answer stays unknown, falls only with a settled success or with
    the end of the grant.
    """

    NONE = 0
    DISCLAIMED = 1
    """An earlier attempt ended without an answer, or with a consent that was dropped, and its owner
    said that it holds nothing."""

    ABANDONED = 2
    """An earlier attempt was armed and never settled: its owner may still hold a pair, or have
    escrowed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One presentation to the token endpoint, committed before the first byte leaves (law 2)."""

    number: int
    """Grows per tenant, over all kinds."""

    attempt_id: str
    """Chosen by the claimer, so that a claim whose acknowledgement was lost is recognised as its
    own."""

    kind: AttemptKind
    base_generation: int
    deadline: datetime
    """On PostgreSQL's clock. Until then nobody else presents (law 1)."""

    phase: AttemptPhase
    started_at: datetime
    replica: str

    def is_live(self, now: datetime) -> bool:
        """Whether the deadline is ahead. At the deadline itself it has passed."""
        return now < self.deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair:
    """What Pleo issued in one answer. Stored together, replaced together."""

    access_token: AccessToken | None
    """Absent for an imported grant that never had one here."""

    refresh_token: RefreshToken | None
    """Absent once destroyed."""

    generation: int
    """The generation under which the pair was stored; sealing binds it."""

    token_type: str = "Bearer"  # noqa: S105 - RFC 6750 name, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadablePair:
    """A sealed pair that does not open: our fault, never REAUTH_REQUIRED (law 5)."""

    generation: int
    key_id: int
    is_key_missing: bool
    """True: the keyset lacks the key. False: the key is there and the value is not what was
    sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reauth:
    """Why and since when the customer must consent again."""

    cause: ReauthCause
    since: datetime
    provider_error: str = ""
    """The OAuth `error` that Pleo answered, if any."""


class FailureKind(StrEnum):
    """What went wrong with the last attempts, none of which says anything about the grant."""

    NONE = "NONE"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    CLIENT_REJECTED = "CLIENT_REJECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """The run of failures since the last success: kind and code, never prose."""

    kind: FailureKind = FailureKind.NONE
    code: str = ""
    """An OAuth error code, an HTTP status, or the name of a transport fault."""

    count: int = 0
    next_try_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionRecord:
    """What callers reported about access tokens that Pleo's API rejected."""

    generation: int = 0
    """The newest generation reported and believed: never served again."""

    rotated_at: datetime | None = None
    """When a report last led to a rotation."""

    interval: timedelta = timedelta(0)
    """How long after that no report leads to another one; doubles while reports go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The row. `Grant(tenant=…)` is a tenant that nobody has connected yet."""

    tenant: str
    state: GrantState = GrantState.UNCONNECTED
    generation: int = 0
    pair: TokenPair | UnreadablePair | None = None
    pair_attempt: int = 0
    """Number of the attempt whose pair this is."""

    pair_base: int | None = None
    """The generation that attempt presented; None after a consent or import."""

    consent_attempt: int = 0
    """Number of the last stored consent or revocation."""

    last_attempt: int = 0
    attempt: Attempt | None = None
    doubt: Doubt = Doubt.NONE
    lifetime: timedelta | None = None
    """The last `expires_in`, for an answer that lacks one."""

    expires_at: datetime | None = None
    renew_at: datetime | None = None
    """Fixed when a generation is committed, jitter included (law 9)."""

    scopes: tuple[str, ...] = ()
    scopes_source: ScopesSource = ScopesSource.REQUESTED
    subject: str | None = None
    """Pleo's company, `urn:pleo:company:<uuid>`, once known."""

    import_fingerprint: bytes | None = None
    """Keyed fingerprint of the refresh token this grant was imported with."""

    reauth: Reauth | None = None
    """Of a HELD grant: what it will be told unless the guard's hold is discarded."""

    quarantined_until: datetime | None = None
    """The fleet guard gave this grant up; until then its sealed pair can be taken back."""

    failures: FailureRecord = field(default_factory=FailureRecord)
    rejection: RejectionRecord = field(default_factory=RejectionRecord)
    refreshed_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    created_at: datetime | None = None
    """Set by the store."""

    updated_at: datetime | None = None
    """Set by the store."""

    def can_be_presented(self) -> bool:
        """Whether there is a refresh token to present: not destroyed, and it opens here."""
        return isinstance(self.pair, TokenPair) and self.pair.refresh_token is not None

    def owns(self, attempt_number: int) -> bool:
        """Whether the attempt on the row is the one with this number."""
        return self.attempt is not None and self.attempt.number == attempt_number
