"""What a caller gets, given the row: a token, an error, a wait, or a refresh."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Unpack

import pytest

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
    TransientError,
)
from broker.domain.freshness import Freshness, freshness
from broker.domain.grant import (
    AttemptKind,
    AttemptPhase,
    FailureKind,
    FailureRecord,
    Grant,
    GrantState,
    RejectionRecord,
    TokenPair,
    UnreadablePair,
)
from broker.domain.next_step import (
    HELD_RETRY,
    NextStep,
    Refresh,
    Refuse,
    Serve,
    Wait,
    can_serve_degraded,
    decide_next,
    error_of_failure,
    error_of_state,
)
from support.grants import (
    A_TICK,
    THE_NOW,
    GrantChanges,
    some_attempt,
    some_grant,
    some_grant_under,
    some_pair,
    some_reauth,
)

SECOND = timedelta(seconds=1)
AGO = THE_NOW - SECOND
LATER = THE_NOW + timedelta(seconds=20)
SERVED_STATES = [GrantState.ACTIVE, GrantState.HELD]
REPORTED = RejectionRecord(generation=7, rotated_at=THE_NOW, interval=SECOND)


def due(**changes: Unpack[GrantChanges]) -> Grant:
    """Returns a grant whose token lives and is to be renewed."""
    return replace(some_grant(**changes), renew_at=THE_NOW)


def decided(grant: Grant, *, above: int = 0) -> NextStep:
    return decide_next(grant, above_generation=above, now=THE_NOW)


def error_in(step: NextStep) -> BrokerError:
    assert isinstance(step, Refuse), step
    return step.error


def retry_after(error: BrokerError) -> timedelta:
    assert isinstance(error, TransientError), error
    return error.retry_after


def failed(kind: FailureKind, *, next_try_at: datetime | None, code: str = "tls") -> FailureRecord:
    return FailureRecord(kind=kind, code=code, count=1, next_try_at=next_try_at)


def test_a_fresh_token_is_served() -> None:
    assert decided(some_grant()) == Serve()


def test_a_token_at_its_renewal_time_is_refreshed() -> None:
    assert decided(some_grant(renew_at=THE_NOW + A_TICK)) == Serve()
    assert decided(some_grant(renew_at=THE_NOW)) == Refresh(generation=7)


def test_an_expired_token_is_refreshed() -> None:
    assert decided(some_grant(renew_at=AGO, expires_at=THE_NOW)) == Refresh(generation=7)


@pytest.mark.parametrize(("above", "step"), [(6, Serve()), (7, Refresh(generation=7))])
def test_a_fresh_token_is_served_only_above_the_generation_asked_for(
    above: int, step: NextStep
) -> None:
    assert decided(some_grant(), above=above) == step


def test_a_rejected_generation_is_never_served_again() -> None:
    assert decided(some_grant(rejection=REPORTED)) == Refresh(generation=7)
    assert decided(some_grant(rejection=replace(REPORTED, generation=6))) == Serve()


def test_a_grant_without_a_refresh_token_is_served_and_never_refreshed() -> None:
    """Else the claim would not be allowed, and whoever wants a token would ask again for ever."""
    alone = replace(some_pair(7), refresh_token=None)

    assert decided(some_grant(pair=alone)) == Serve()
    assert isinstance(error_in(decided(due(pair=alone))), RecordUnreadable)


def test_without_a_refresh_token_a_consent_under_way_is_still_waited_for() -> None:
    alone = replace(some_pair(7), refresh_token=None)
    attempt = some_attempt(kind=AttemptKind.EXCHANGE)

    step = decided(some_grant_under(attempt, renew_at=AGO, pair=alone))

    assert step == Wait(until=attempt.deadline)


@pytest.mark.parametrize("phase", [AttemptPhase.CLAIMED, AttemptPhase.ARMED])
@pytest.mark.parametrize("kind", AttemptKind)
def test_a_live_attempt_is_waited_for(phase: AttemptPhase, kind: AttemptKind) -> None:
    attempt = some_attempt(phase=phase, kind=kind, deadline=THE_NOW + A_TICK)

    assert decided(some_grant_under(attempt, renew_at=AGO)) == Wait(until=attempt.deadline)


@pytest.mark.parametrize("phase", AttemptPhase)
def test_an_attempt_at_its_deadline_is_waited_for_no_more(phase: AttemptPhase) -> None:
    attempt = some_attempt(phase=phase, deadline=THE_NOW)

    assert decided(some_grant_under(attempt, renew_at=AGO)) == Refresh(generation=7)


@pytest.mark.parametrize(
    ("next_try_at", "seconds"),
    [
        (None, 20),
        (THE_NOW + timedelta(seconds=5), 20),
        (THE_NOW + timedelta(seconds=25), 25),
    ],
)
def test_an_unknown_outcome_is_told_until_its_deadline_or_the_next_try(
    next_try_at: datetime | None, seconds: int
) -> None:
    attempt = some_attempt(phase=AttemptPhase.UNKNOWN, deadline=LATER)
    failures = failed(FailureKind.OUTCOME_UNKNOWN, next_try_at=next_try_at)

    error = error_in(decided(some_grant_under(attempt, renew_at=AGO, failures=failures)))

    assert isinstance(error, RefreshOutcomeUnknown)
    assert error.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FailureKind.NONE, ProviderUnavailable),
        (FailureKind.PROVIDER_UNAVAILABLE, ProviderUnavailable),
        (FailureKind.OUTCOME_UNKNOWN, RefreshOutcomeUnknown),
        (FailureKind.CLIENT_REJECTED, ProviderRejectedClient),
    ],
)
def test_a_failure_is_told_until_its_next_try(
    kind: FailureKind, expected: type[BrokerError]
) -> None:
    step = decided(due(failures=failed(kind, next_try_at=THE_NOW + A_TICK)))

    assert type(error_in(step)) is expected


def test_a_failure_says_when_to_come_back() -> None:
    grant = due(failures=failed(FailureKind.PROVIDER_UNAVAILABLE, next_try_at=LATER))

    error = error_in(decided(grant))

    assert retry_after(error) == LATER - THE_NOW
    assert (error.tenant, error.metadata) == ("acme", {"code": "tls"})


@pytest.mark.parametrize("next_try_at", [None, AGO, THE_NOW])
def test_a_failure_is_over_at_its_next_try(next_try_at: datetime | None) -> None:
    grant = due(failures=failed(FailureKind.PROVIDER_UNAVAILABLE, next_try_at=next_try_at))

    assert decided(grant) == Refresh(generation=7)


def test_a_fresh_token_is_served_whatever_failed() -> None:
    failures = failed(FailureKind.CLIENT_REJECTED, next_try_at=LATER)

    assert decided(some_grant(failures=failures)) == Serve()


def test_an_error_names_the_code_of_the_failure_where_there_is_one() -> None:
    rejected = error_of_failure(
        "acme", FailureKind.CLIENT_REJECTED, code="invalid_client", retry_after=SECOND
    )
    nameless = error_of_failure("acme", FailureKind.NONE, code="", retry_after=SECOND)

    assert rejected.metadata == {"error": "invalid_client"}
    assert nameless.metadata == {}


@pytest.mark.parametrize("state", [GrantState.UNCONNECTED, GrantState.REVOKED])
def test_callers_see_no_grant_before_the_first_consent_and_after_the_end(
    state: GrantState,
) -> None:
    assert isinstance(error_in(decided(some_grant(state=state))), TenantNotFound)


def test_callers_are_told_when_a_grant_was_revoked() -> None:
    revoked = error_of_state(some_grant(state=GrantState.REVOKED, revoked_at=THE_NOW))
    never = error_of_state(Grant(tenant="acme"))

    assert revoked is not None
    assert revoked.metadata == {"revoked_at": THE_NOW.isoformat()}
    assert never is not None
    assert never.metadata == {}


def test_reauth_required_says_why_and_since_when() -> None:
    grant = some_grant(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())

    error = error_in(decided(grant))

    assert isinstance(error, ReauthRequired)
    assert error.metadata == {
        "cause": "EXPIRED_OR_REVOKED",
        "since": THE_NOW.isoformat(),
        "generation": "7",
    }


def test_reauth_required_without_a_cause_is_our_fault() -> None:
    error = error_in(decided(some_grant(state=GrantState.REAUTH_REQUIRED)))

    assert isinstance(error, RecordUnreadable)


def test_a_held_grant_is_told_with_a_minute_to_wait() -> None:
    error = error_in(decided(some_grant(state=GrantState.HELD)))

    assert isinstance(error, GrantHeld)
    assert error.retry_after == HELD_RETRY == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (UnreadablePair(generation=7, key_id=1, is_key_missing=True), KeyUnavailable),
        (UnreadablePair(generation=7, key_id=1, is_key_missing=False), RecordUnreadable),
        (None, RecordUnreadable),
    ],
)
def test_a_pair_that_does_not_open_is_our_fault(
    pair: UnreadablePair | None, expected: type[BrokerError]
) -> None:
    assert type(error_in(decided(some_grant(pair=pair)))) is expected


def test_a_readable_grant_in_use_has_no_error() -> None:
    assert error_of_state(some_grant()) is None


@pytest.mark.parametrize("state", GrantState)
def test_only_a_grant_that_may_be_alive_is_served_degraded(state: GrantState) -> None:
    can = can_serve_degraded(due(state=state), above_generation=0, now=THE_NOW)

    assert can is (state in SERVED_STATES)


@pytest.mark.parametrize(("since", "can"), [(-A_TICK, True), (timedelta(0), False)])
def test_a_token_is_served_degraded_up_to_its_expiry(since: timedelta, *, can: bool) -> None:
    grant = due(expires_at=THE_NOW)

    assert can_serve_degraded(grant, above_generation=0, now=THE_NOW + since) is can


@pytest.mark.parametrize(("above", "rejected"), [(7, 0), (0, 7), (8, 6)])
def test_a_rejected_token_is_not_served_degraded_either(above: int, rejected: int) -> None:
    grant = due(rejection=replace(REPORTED, generation=rejected))

    assert not can_serve_degraded(grant, above_generation=above, now=THE_NOW)
    assert can_serve_degraded(
        due(rejection=replace(REPORTED, generation=6)), above_generation=6, now=THE_NOW
    )


@pytest.mark.parametrize(
    "pair",
    [
        None,
        UnreadablePair(generation=7, key_id=1, is_key_missing=True),
        replace(some_pair(7), access_token=None),
    ],
)
def test_what_does_not_open_is_not_served_degraded(
    pair: TokenPair | UnreadablePair | None,
) -> None:
    grant = due(pair=pair)

    assert freshness(grant, THE_NOW) is Freshness.EXPIRED
    assert not can_serve_degraded(grant, above_generation=0, now=THE_NOW)
