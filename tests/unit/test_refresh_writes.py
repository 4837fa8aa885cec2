"""What follows the claim of a refresh: arm, refuse, call unknown, let go. Each condition alone.

Storing is in `test_store_rotated.py`, claiming in `test_claims.py`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.decision import Decision, Why
from broker.domain.grant import (
    Attempt,
    AttemptPhase,
    Doubt,
    FailureKind,
    FailureRecord,
    Grant,
    GrantState,
    Reauth,
    ReauthCause,
    TokenPair,
    UnreadablePair,
)
from broker.domain.refresh_writes import arm, call_unknown, let_go, refuse
from support.grants import (
    A_TICK,
    THE_NOW,
    changed,
    some_attempt,
    some_grant,
    some_grant_under,
    some_pair,
    why_not,
)

CLAIMED = AttemptPhase.CLAIMED
ARMED = AttemptPhase.ARMED
UNKNOWN = AttemptPhase.UNKNOWN

MINE = some_attempt()
OTHER_NUMBERS = [MINE.number - 1, MINE.number + 1]
LATER = THE_NOW + timedelta(minutes=1)
FAILED_BEFORE = FailureRecord(
    kind=FailureKind.PROVIDER_UNAVAILABLE, code="http_429", count=2, next_try_at=LATER
)
FAILED_AGAIN = replace(FAILED_BEFORE, kind=FailureKind.OUTCOME_UNKNOWN, count=3)


def under(*, phase: AttemptPhase = ARMED, number: int = MINE.number) -> Grant:
    """Returns the grant with an attempt on its row: mine, unless numbered otherwise."""
    return some_grant_under(
        replace(MINE, phase=phase, number=number),
        doubt=Doubt.DISCLAIMED,
        failures=FAILED_BEFORE,
    )


def armed(grant: Grant, mine: Attempt = MINE) -> Decision:
    return arm(grant, mine, deadline=LATER, now=THE_NOW)


def refused(grant: Grant) -> Decision:
    return refuse(grant, MINE, provider_error="invalid_grant", now=THE_NOW)


def test_arming_moves_the_phase_and_the_deadline_and_nothing_else() -> None:
    before = under(phase=CLAIMED)

    after = changed(armed(before))

    assert after == replace(before, attempt=replace(MINE, phase=ARMED, deadline=LATER))


@pytest.mark.parametrize("number", OTHER_NUMBERS)
def test_another_ones_attempt_is_not_armed(number: int) -> None:
    assert why_not(armed(under(phase=CLAIMED, number=number))) is Why.NOT_OWN


def test_an_attempt_that_is_gone_is_not_armed() -> None:
    assert why_not(armed(some_grant())) is Why.NOT_OWN


@pytest.mark.parametrize("generation", [6, 8])
def test_an_attempt_is_not_armed_for_another_generation_than_its_base(generation: int) -> None:
    moved = replace(under(phase=CLAIMED), generation=generation)

    assert why_not(armed(moved)) is Why.MOVED_ON


@pytest.mark.parametrize(("phase", "why"), [(ARMED, Why.ALREADY), (UNKNOWN, Why.WRONG_PHASE)])
def test_only_a_merely_claimed_attempt_is_armed(phase: AttemptPhase, why: Why) -> None:
    assert why_not(armed(under(phase=phase))) is why


@pytest.mark.parametrize(
    "pair",
    [
        UnreadablePair(generation=7, key_id=1, is_key_missing=True),
        replace(some_pair(7), refresh_token=None),
    ],
)
def test_an_attempt_is_not_armed_without_a_refresh_token(pair: TokenPair | UnreadablePair) -> None:
    grant = replace(under(phase=CLAIMED), pair=pair)

    assert why_not(armed(grant)) is Why.NO_TOKEN


def test_an_attempt_is_armed_up_to_its_deadline_and_not_at_it() -> None:
    claimed = some_attempt(phase=CLAIMED, deadline=THE_NOW + A_TICK)
    overdue = replace(claimed, deadline=THE_NOW)

    changed(armed(some_grant_under(claimed)))

    assert why_not(armed(some_grant_under(overdue))) is Why.OVERDUE


def test_a_refusal_ends_the_grant_and_the_attempt() -> None:
    before = under()

    after = changed(refused(before))

    assert after == replace(
        before,
        state=GrantState.REAUTH_REQUIRED,
        reauth=Reauth(
            cause=ReauthCause.ROTATION_LOST, since=THE_NOW, provider_error="invalid_grant"
        ),
        attempt=None,
        failures=FailureRecord(),
    )


@pytest.mark.parametrize(
    ("doubt", "cause"),
    [
        (Doubt.NONE, ReauthCause.EXPIRED_OR_REVOKED),
        (Doubt.DISCLAIMED, ReauthCause.ROTATION_LOST),
        (Doubt.ABANDONED, ReauthCause.ROTATION_LOST),
    ],
)
def test_any_doubt_makes_a_refusal_a_lost_rotation(doubt: Doubt, cause: ReauthCause) -> None:
    after = changed(refused(some_grant_under(MINE, doubt=doubt)))

    assert after.reauth is not None
    assert after.reauth.cause is cause


def test_what_was_given_up_before_has_no_part_in_a_new_refusal() -> None:
    # A replica of the schema before stores a consent, and knows no such column.
    before = replace(under(), quarantined_until=LATER)

    assert changed(refused(before)).quarantined_until is None


@pytest.mark.parametrize("generation", [6, 8])
def test_a_refusal_of_another_generation_only_lets_go(generation: int) -> None:
    moved = replace(under(), generation=generation)

    assert changed(refused(moved)) == replace(moved, attempt=None)


@pytest.mark.parametrize("phase", [CLAIMED, UNKNOWN])
def test_a_refusal_is_believed_of_an_armed_attempt_alone(phase: AttemptPhase) -> None:
    before = under(phase=phase)

    assert changed(refused(before)) == replace(before, attempt=None)


@pytest.mark.parametrize("number", OTHER_NUMBERS)
def test_a_refusal_of_an_attempt_that_was_replaced_changes_nothing(number: int) -> None:
    assert why_not(refused(under(number=number))) is Why.NOT_OWN


def test_a_refusal_of_an_attempt_that_is_gone_changes_nothing() -> None:
    assert why_not(refused(some_grant())) is Why.NOT_OWN


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Doubt.NONE, Doubt.DISCLAIMED),
        (Doubt.DISCLAIMED, Doubt.DISCLAIMED),
        (Doubt.ABANDONED, Doubt.ABANDONED),
    ],
)
def test_an_unknown_outcome_leaves_the_attempt_its_deadline_and_a_doubt(
    before: Doubt, after: Doubt
) -> None:
    grant = replace(under(), doubt=before)

    assert changed(call_unknown(grant, MINE, failures=FAILED_AGAIN)) == replace(
        grant,
        attempt=replace(MINE, phase=UNKNOWN),
        doubt=after,
        failures=FAILED_AGAIN,
    )


@pytest.mark.parametrize("number", OTHER_NUMBERS)
def test_another_ones_attempt_is_not_called_unknown(number: int) -> None:
    decision = call_unknown(under(number=number), MINE, failures=FAILED_AGAIN)

    assert why_not(decision) is Why.NOT_OWN


def test_an_attempt_that_is_gone_is_not_called_unknown() -> None:
    assert why_not(call_unknown(some_grant(), MINE, failures=FAILED_AGAIN)) is Why.NOT_OWN


@pytest.mark.parametrize("phase", [CLAIMED, UNKNOWN])
def test_only_an_armed_attempt_is_called_unknown(phase: AttemptPhase) -> None:
    decision = call_unknown(under(phase=phase), MINE, failures=FAILED_AGAIN)

    assert why_not(decision) is Why.WRONG_PHASE


@pytest.mark.parametrize("doubt", Doubt)
@pytest.mark.parametrize("phase", [CLAIMED, ARMED])
def test_letting_go_clears_the_attempt_and_never_the_doubt(
    doubt: Doubt, phase: AttemptPhase
) -> None:
    grant = replace(under(phase=phase), doubt=doubt)

    assert changed(let_go(grant, MINE)) == replace(grant, attempt=None)


def test_letting_go_may_note_a_failure() -> None:
    after = changed(let_go(under(), MINE, failures=FAILED_AGAIN))

    assert after == replace(under(), attempt=None, failures=FAILED_AGAIN)


@pytest.mark.parametrize("number", OTHER_NUMBERS)
def test_another_ones_attempt_is_not_let_go(number: int) -> None:
    assert why_not(let_go(under(number=number), MINE)) is Why.NOT_OWN


def test_there_is_nothing_to_let_go_without_an_attempt() -> None:
    assert why_not(let_go(some_grant(), MINE)) is Why.NOT_OWN
