"""What to do for a caller, given the row: serve, refuse, wait, come back later, or refresh.

Pure and total: `GetAccessToken` is this decision, and the I/O that carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias, assert_never

from broker.domain.clocks import is_pausing
from broker.domain.errors import (
    BrokerError,
    GrantHeld,
    KeyUnavailable,
    ProviderRejectedClient,
    ProviderUnavailable,
    ReauthRequired,
    RecordUnreadable,
    RefreshOutcomeUnknown,
    TenantNotFound,
)
from broker.domain.freshness import Freshness, freshness
from broker.domain.grant import (
    AttemptPhase,
    FailureKind,
    Grant,
    GrantState,
    Reauth,
    TokenPair,
    UnreadablePair,
)

HELD_RETRY: Final = timedelta(seconds=60)
"""The fleet guard is decided on by people, in minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """The token is fresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """No token, and asking again changes nothing before `error` says so."""

    error: BrokerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Somebody's attempt is live: read again soon, at the latest at its deadline."""

    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """Nobody is at it: present this generation's refresh token."""

    generation: int


NextStep: TypeAlias = Serve | Refuse | Wait | Refresh


def decide_next(grant: Grant, *, above_generation: int, now: datetime) -> NextStep:
    """Decides what a caller gets who wants a token of a generation above the given one.

    A living token that is not fresh is not this function's matter: whoever gets `Refuse` or has to
    wait may serve it as degraded, see `can_serve_degraded`.
    """
    if error := error_of_state(grant):
        return Refuse(error=error)
    if (
        grant.generation > max(above_generation, grant.rejection.generation)
        and freshness(grant, now) is Freshness.FRESH
    ):
        return Serve()
    return _without_fresh_token(grant, now)


def can_serve_degraded(grant: Grant, *, above_generation: int, now: datetime) -> bool:
    """Whether the token is within its life, readable, and was not reported as rejected."""
    return (
        grant.state in {GrantState.ACTIVE, GrantState.HELD}
        and grant.generation > max(above_generation, grant.rejection.generation)
        and freshness(grant, now) is not Freshness.EXPIRED
    )


def error_of_state(grant: Grant) -> BrokerError | None:
    """Returns what callers of a grant in this state are told, or None where it can have a token."""
    tenant = grant.tenant
    match grant.state:
        case GrantState.UNCONNECTED:
            return TenantNotFound(tenant=tenant)
        case GrantState.REVOKED:
            return TenantNotFound(tenant=tenant, revoked_at=grant.revoked_at)
        case GrantState.REAUTH_REQUIRED:
            return _reauth_required(grant)
        case GrantState.HELD:
            return GrantHeld(
                "many grants were refused at once: on-call decides whether to believe it",
                tenant=tenant,
                retry_after=HELD_RETRY,
            )
        case GrantState.ACTIVE:
            return _unreadable(grant)
        case _:
            assert_never(grant.state)


def _reauth_required(grant: Grant) -> BrokerError:
    if not isinstance(grant.reauth, Reauth):
        return RecordUnreadable("REAUTH_REQUIRED without a cause", tenant=grant.tenant)
    return ReauthRequired(
        tenant=grant.tenant,
        cause=grant.reauth.cause,
        since=grant.reauth.since,
        generation=grant.generation,
    )


def _unreadable(grant: Grant) -> BrokerError | None:
    match grant.pair:
        case UnreadablePair(is_key_missing=True):
            return KeyUnavailable(
                "this replica lacks the key that the grant is sealed under", tenant=grant.tenant
            )
        case UnreadablePair() | None:
            return RecordUnreadable("the grant's tokens do not open", tenant=grant.tenant)
        case _:
            return None


def _without_fresh_token(grant: Grant, now: datetime) -> NextStep:
    attempt = grant.attempt
    if attempt is not None and attempt.is_live(now):
        if attempt.phase is AttemptPhase.UNKNOWN:
            return Refuse(error=_failure(grant, FailureKind.OUTCOME_UNKNOWN, attempt.deadline, now))
        return Wait(until=attempt.deadline)
    if isinstance(grant.pair, TokenPair) and grant.pair.refresh_token is None:
        # No claim would be allowed, and whoever read again would read the same for ever.
        return Refuse(error=RecordUnreadable("the grant has no refresh token", tenant=grant.tenant))
    failures = grant.failures
    if failures.next_try_at is not None and is_pausing(failures, now):
        return Refuse(error=_failure(grant, failures.kind, failures.next_try_at, now))
    return Refresh(generation=grant.generation)


def _failure(grant: Grant, kind: FailureKind, until: datetime, now: datetime) -> BrokerError:
    later = until
    if grant.failures.next_try_at is not None and is_pausing(grant.failures, now):
        later = max(until, grant.failures.next_try_at)
    return error_of_failure(grant.tenant, kind, code=grant.failures.code, retry_after=later - now)


def error_of_failure(
    tenant: str, kind: FailureKind, *, code: str, retry_after: timedelta
) -> BrokerError:
    """Returns what callers are told while a failed refresh waits for its next try."""
    match kind:
        case FailureKind.CLIENT_REJECTED:
            return ProviderRejectedClient(tenant=tenant, error=code)
        case FailureKind.OUTCOME_UNKNOWN:
            return RefreshOutcomeUnknown(
                "a refresh was sent to Pleo and no answer came",
                tenant=tenant,
                retry_after=retry_after,
            )
        case FailureKind.PROVIDER_UNAVAILABLE | FailureKind.NONE:
            return ProviderUnavailable(
                "Pleo cannot be reached, is slow, or asks us to wait",
                tenant=tenant,
                retry_after=retry_after,
                metadata={"code": code} if code else None,
            )
        case _:
            assert_never(kind)
