"""One fact of every class, with a tenant that would be noticed wherever it appeared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from broker.domain.decision import Why
from broker.domain.facts import (
    AttemptAnswered,
    AttemptClaimed,
    AttemptOverdue,
    AttemptSending,
    AttemptSettled,
    BreakerMoved,
    DefectMet,
    EscrowAdopted,
    EscrowsUnreachable,
    EscrowWritten,
    EvidenceUnread,
    Fact,
    FilesLoaded,
    FilesRefused,
    FlightEnded,
    FlightJoined,
    FlightStarted,
    GrantRevoked,
    GuardMoved,
    HistoryLost,
    KeysRewrapped,
    LeaseAnswered,
    LeaseOutcome,
    LoopFailed,
    MemoryDropped,
    PastChanged,
    ReauthBecameRequired,
    RejectionReported,
    RenewalEnded,
    SealedValueUnreadable,
    SettlementDelayed,
    Source,
    TokenServed,
    WaitedForReplica,
    WrittenBack,
)
from broker.domain.grant import AttemptKind, Doubt, ReauthCause
from broker.domain.guard import GuardState
from broker.domain.history import AttemptOutcome

THE_TENANT: Final = "conspicuous-tenant"
THE_SECRET: Final = "hunter2-obviously-fake"

SECONDS: Final = timedelta(seconds=1, milliseconds=500)

KINDS: Final[tuple[type[Fact], ...]] = get_args(Fact)
"""Every class of fact that there is."""

_EXAMPLES: Final[tuple[Fact, ...]] = (
    TokenServed(source=Source.MEMORY, degraded=False),
    FlightStarted(tenant=THE_TENANT, flight=1),
    FlightJoined(tenant=THE_TENANT, flight=1),
    FlightEnded(
        tenant=THE_TENANT, flight=1, waiters=7, duration=SECONDS, reason="STORE_UNAVAILABLE"
    ),
    LeaseAnswered(tenant=THE_TENANT, outcome=LeaseOutcome.HELD, duration=SECONDS),
    WaitedForReplica(tenant=THE_TENANT, duration=SECONDS),
    AttemptClaimed(
        tenant=THE_TENANT,
        kind=AttemptKind.REFRESH,
        number=8,
        base_generation=41,
        doubt=Doubt.DISCLAIMED,
        duration=SECONDS,
    ),
    AttemptSending(tenant=THE_TENANT, number=8),
    AttemptOverdue(
        tenant=THE_TENANT, kind=AttemptKind.REFRESH, number=8, http_timeout=timedelta(seconds=10)
    ),
    AttemptAnswered(
        tenant=THE_TENANT,
        kind=AttemptKind.REFRESH,
        number=8,
        outcome=AttemptOutcome.REFUSED,
        error="invalid_grant",
        http_status=400,
        duration=SECONDS,
        flags=("no_expires_in",),
    ),
    AttemptSettled(
        tenant=THE_TENANT,
        number=8,
        outcome=AttemptOutcome.STALE,
        generation=42,
        duration=SECONDS,
        not_allowed=Why.MOVED_ON,
    ),
    EscrowWritten(tenant=THE_TENANT, number=8, is_acknowledged=False),
    EscrowAdopted(tenant=THE_TENANT, number=8, not_allowed=Why.ALREADY),
    EscrowsUnreachable(tenant=THE_TENANT, number=8, tries=2, presents=False),
    SettlementDelayed(tenant=THE_TENANT, number=8, holds_pair=True, tries=3),
    ReauthBecameRequired(
        tenant=THE_TENANT, cause=ReauthCause.ROTATION_LOST, provider_error="invalid_grant"
    ),
    GrantRevoked(
        tenant=THE_TENANT, generation=42, by="uri:spiffe://example.org/web", at_provider=False
    ),
    RejectionReported(tenant=THE_TENANT, generation=41, verdict="believed"),
    BreakerMoved(cause="CLIENT_REJECTED", code="invalid_client"),
    GuardMoved(state=GuardState.CONFIRMING, by="ops@example.org", reason="Pleo says so"),
    PastChanged(before="7/00000001/1", after="7/00000002/1"),
    WrittenBack(tenant=THE_TENANT, generation=42, not_allowed=Why.MOVED_ON),
    EvidenceUnread(tenant=THE_TENANT, number=8),
    MemoryDropped(tenant=THE_TENANT, cause="moved"),
    RenewalEnded(tenant=THE_TENANT, overdue_for=timedelta(seconds=2), reason=""),
    HistoryLost(tenant=THE_TENANT, number=8, error="CheckViolationError"),
    LoopFailed(loop="usage", error="STORE_UNAVAILABLE"),
    FilesLoaded(what="tls", expires_at=datetime(2026, 3, 1, tzinfo=UTC)),
    FilesRefused(what="policy", error="policy.yaml: line 3: expected `callers`"),
    SealedValueUnreadable(tenant=THE_TENANT, table="grants", field="access_token"),
    KeysRewrapped(
        by="ops@example.org", reason="yearly", key_id=7, total=5, rewrapped=4, unreadable=1
    ),
    DefectMet(
        defect_id="00c0ffee00c0ffee",
        where="TokenService/GetAccessToken",
        error=ValueError(f"{THE_TENANT} has {THE_SECRET}"),
    ),
)

_BY_KIND: Final[Mapping[type[Fact], Fact]] = {type(each): each for each in _EXAMPLES}


def example_of(kind: type[Fact]) -> Fact:
    """Returns a fact of this class.

    Raises:
        KeyError: the class is new, and has no example here yet.
    """
    return _BY_KIND[kind]
