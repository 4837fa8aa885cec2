"""What the broker does next with a grant, unasked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.evidence import GUARD_WINDOW
from broker.domain.explanation import Hold, Known, Planned, hold_of, planned
from broker.domain.grant import AttemptPhase, FailureKind, FailureRecord, Grant, GrantState
from broker.domain.guard import Guard, GuardState
from support.grants import THE_NOW, some_attempt, some_grant, some_grant_under, some_reauth
from support.known import A_MINUTE, known_of

HELD = some_grant(state=GrantState.HELD, reauth=some_reauth())
REFUSED = some_grant(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())
EXPIRED = some_grant(expires_at=THE_NOW, renew_at=THE_NOW)

HOLDING = Guard(state=GuardState.HOLDING, since=THE_NOW, until=THE_NOW + timedelta(hours=4))

A_BREAKER = Breaker(
    cause=BreakerCause.OUTCOMES_UNKNOWN,
    code="read_timeout",
    since=THE_NOW - A_MINUTE,
    probe_at=THE_NOW + A_MINUTE,
)


def step(known: Known) -> Planned:
    found = planned(known)
    assert found is not None
    return found


def test_a_fresh_grant_is_renewed_at_its_time() -> None:
    assert step(known_of()).due_at == some_grant().renew_at


def test_an_expired_grant_waits_for_somebody_to_ask() -> None:
    found = step(known_of(EXPIRED))

    assert found == Planned(description="its tokens are renewed as soon as somebody asks")


def test_behind_the_breaker_the_next_probe_is_waited_for() -> None:
    found = step(replace(known_of(EXPIRED), breaker=A_BREAKER))

    assert found.due_at == A_BREAKER.probe_at
    assert "breaker" in found.description


def test_a_fresh_grant_is_none_of_the_breakers_business() -> None:
    assert step(replace(known_of(), breaker=A_BREAKER)).due_at == some_grant().renew_at


def test_the_end_of_somebodys_attempt_is_awaited() -> None:
    attempt = some_attempt()

    found = step(known_of(some_grant_under(attempt)))

    assert (found.due_at, attempt.replica in found.description) == (attempt.deadline, True)


def test_after_an_unknown_outcome_the_token_is_presented_once_more() -> None:
    attempt = some_attempt(phase=AttemptPhase.UNKNOWN)

    found = step(known_of(some_grant_under(attempt)))

    assert (found.due_at, "once more" in found.description) == (attempt.deadline, True)


def test_an_attempt_whose_deadline_has_come_holds_up_nobody() -> None:
    attempt = some_attempt(deadline=THE_NOW)

    assert step(known_of(replace(EXPIRED, attempt=attempt))).due_at is None


def test_a_failed_refresh_is_tried_again_after_its_pause() -> None:
    next_try_at = THE_NOW + A_MINUTE
    failures = FailureRecord(
        kind=FailureKind.PROVIDER_UNAVAILABLE, count=2, next_try_at=next_try_at
    )

    found = step(known_of(replace(EXPIRED, failures=failures)))

    assert found.due_at == next_try_at


def test_a_grant_without_refresh_token_has_nothing_before_it() -> None:
    assert planned(known_of(some_grant(pair=None))) is None


@pytest.mark.parametrize("state", [GrantState.UNCONNECTED, GrantState.REVOKED])
def test_what_is_over_has_nothing_before_it(state: GrantState) -> None:
    assert planned(known_of(some_grant(state=state))) is None


def test_a_refused_token_is_destroyed_after_the_guards_window() -> None:
    assert step(known_of(REFUSED)).due_at == THE_NOW + GUARD_WINDOW


def test_what_the_guard_gave_up_is_destroyed_after_its_quarantine() -> None:
    until = THE_NOW + timedelta(days=7)

    assert step(known_of(replace(REFUSED, quarantined_until=until))).due_at == until


@pytest.mark.parametrize("grant", [replace(REFUSED, pair=None), replace(REFUSED, reauth=None)])
def test_where_nothing_is_left_to_destroy_nothing_is_planned(grant: Grant) -> None:
    assert planned(known_of(grant)) is None


def test_a_held_grant_is_held_as_long_as_the_guard_waits() -> None:
    known = replace(known_of(HELD), guard=HOLDING)

    assert hold_of(known) == Hold(since=THE_NOW, until=THE_NOW + timedelta(hours=4))
    assert step(known).due_at == HOLDING.until


def test_held_under_a_guard_that_watches_again_it_follows_at_once() -> None:
    hold = hold_of(known_of(HELD))

    assert hold == Hold(since=THE_NOW, until=THE_NOW)


def test_held_without_a_cause_there_is_no_hold_to_tell_of() -> None:
    known = known_of(replace(HELD, reauth=None))

    assert (hold_of(known), step(known).due_at) == (None, None)


def test_other_grants_are_not_held() -> None:
    assert hold_of(replace(known_of(REFUSED), guard=HOLDING)) is None
