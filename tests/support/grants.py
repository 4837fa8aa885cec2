"""Grants and what surrounds them, as plain values: in use, mid-life, nothing odd about them.

A test names only what it is about; the rest is here. Times are relative to `THE_NOW`, tokens are
obviously fake, and the numbers differ from one another so that no two can be confused.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypedDict, Unpack

from broker.domain.claims import Claimer
from broker.domain.decision import Changed, Decision, Unchanged, Why
from broker.domain.grant import (
    Attempt,
    AttemptKind,
    AttemptPhase,
    Doubt,
    FailureRecord,
    Grant,
    GrantState,
    Reauth,
    ReauthCause,
    RejectionRecord,
    ScopesSource,
    TokenPair,
    UnreadablePair,
)
from broker.domain.refresh_writes import Issue
from broker.domain.secret import AccessToken, RefreshToken, Secret

THE_NOW: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""The time on PostgreSQL's clock at which tests happen."""

A_TICK: Final = timedelta(microseconds=1)
"""The shortest time there is, for boundaries."""


class GrantChanges(TypedDict, total=False):
    """What may be different about a grant."""

    tenant: str
    state: GrantState
    generation: int
    pair: TokenPair | UnreadablePair | None
    pair_attempt: int
    pair_base: int | None
    consent_attempt: int
    last_attempt: int
    attempt: Attempt | None
    doubt: Doubt
    lifetime: timedelta | None
    expires_at: datetime | None
    renew_at: datetime | None
    scopes: tuple[str, ...]
    scopes_source: ScopesSource
    subject: str | None
    import_fingerprint: bytes | None
    reauth: Reauth | None
    quarantined_until: datetime | None
    failures: FailureRecord
    rejection: RejectionRecord
    refreshed_at: datetime | None
    revoked_at: datetime | None


class AttemptChanges(TypedDict, total=False):
    """What may be different about an attempt."""

    number: int
    attempt_id: str
    kind: AttemptKind
    base_generation: int
    deadline: datetime
    phase: AttemptPhase
    started_at: datetime
    replica: str


class ClaimerChanges(TypedDict, total=False):
    """What may be different about a claimer."""

    attempt_id: str
    kind: AttemptKind
    replica: str
    deadline: datetime


class IssueChanges(TypedDict, total=False):
    """What may be different about what Pleo issued."""

    access_token: AccessToken | None
    refresh_token: RefreshToken
    token_type: str
    lifetime: timedelta
    expires_at: datetime
    renew_at: datetime
    scopes: tuple[str, ...] | None
    scopes_source: ScopesSource
    subject: str | None


def some_pair(generation: int) -> TokenPair:
    """Returns the pair of a generation."""
    return TokenPair(
        access_token=AccessToken(Secret(f"fake-access-{generation}")),
        refresh_token=RefreshToken(Secret(f"fake-refresh-{generation}")),
        generation=generation,
    )


_GRANT: Final = Grant(
    tenant="acme",
    state=GrantState.ACTIVE,
    generation=7,
    pair=some_pair(7),
    pair_attempt=12,
    pair_base=6,
    consent_attempt=3,
    last_attempt=12,
    lifetime=timedelta(minutes=15),
    expires_at=THE_NOW + timedelta(minutes=10),
    renew_at=THE_NOW + timedelta(minutes=8),
    scopes=("accounts:read",),
    scopes_source=ScopesSource.REQUESTED,
    subject="urn:pleo:company:00000000-0000-4000-8000-000000000001",
    import_fingerprint=b"fingerprint",
    refreshed_at=THE_NOW - timedelta(minutes=5),
)

_ATTEMPT: Final = Attempt(
    number=13,
    attempt_id="mine",
    kind=AttemptKind.REFRESH,
    base_generation=7,
    deadline=THE_NOW + timedelta(seconds=30),
    phase=AttemptPhase.ARMED,
    started_at=THE_NOW - timedelta(seconds=1),
    replica="replica-1",
)

_CLAIMER: Final = Claimer(
    attempt_id="claimer",
    kind=AttemptKind.REFRESH,
    replica="replica-2",
    deadline=THE_NOW + timedelta(seconds=40),
)

_ISSUE: Final = Issue(
    access_token=AccessToken(Secret("fake-access-issued")),
    refresh_token=RefreshToken(Secret("fake-refresh-issued")),
    token_type="Bearer",
    lifetime=timedelta(minutes=20),
    expires_at=THE_NOW + timedelta(minutes=20),
    renew_at=THE_NOW + timedelta(minutes=18),
)


def some_grant(**changes: Unpack[GrantChanges]) -> Grant:
    """Returns an ACTIVE grant of generation 7, fresh, with nobody at it and nothing in doubt."""
    return replace(_GRANT, **changes)


def some_attempt(**changes: Unpack[AttemptChanges]) -> Attempt:
    """Returns a live, armed refresh of generation 7: number 13, the one after the grant's last."""
    return replace(_ATTEMPT, **changes)


def some_grant_under(attempt: Attempt, /, **changes: Unpack[GrantChanges]) -> Grant:
    """Returns the grant with this attempt, the last there was, on its row."""
    return replace(some_grant(**changes), attempt=attempt, last_attempt=attempt.number)


def some_claimer(**changes: Unpack[ClaimerChanges]) -> Claimer:
    """Returns somebody who wants to refresh and owns nothing yet."""
    return replace(_CLAIMER, **changes)


def some_issue(**changes: Unpack[IssueChanges]) -> Issue:
    """Returns a pair as Pleo issues it, with no word about scopes."""
    return replace(_ISSUE, **changes)


def some_reauth() -> Reauth:
    """Returns why a customer must consent again: Pleo said so."""
    return Reauth(
        cause=ReauthCause.EXPIRED_OR_REVOKED, since=THE_NOW, provider_error="invalid_grant"
    )


def changed(decision: Decision) -> Grant:
    """Returns the row that a write leads to; fails where it is not allowed."""
    assert isinstance(decision, Changed), decision
    return decision.after


def why_not(decision: Decision) -> Why:
    """Returns why a write is not allowed; fails where it is."""
    assert isinstance(decision, Unchanged), decision
    return decision.why
