"""Storing a rotated pair: nothing received is lost (law 3), and the newest wins (law 4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.decision import Decision, Why
from broker.domain.grant import (
    Attempt,
    Doubt,
    FailureKind,
    FailureRecord,
    Grant,
    GrantState,
    ScopesSource,
    TokenPair,
)
from broker.domain.refresh_writes import store_rotated
from support.grants import (
    THE_NOW,
    changed,
    some_attempt,
    some_grant,
    some_grant_under,
    some_issue,
    some_reauth,
    why_not,
)

MINE = some_attempt()
THEIRS = some_attempt(number=14, attempt_id="theirs")
ISSUED = some_issue()
STORABLE = [GrantState.ACTIVE, GrantState.HELD, GrantState.REAUTH_REQUIRED]


def store(grant: Grant, mine: Attempt = MINE) -> Decision:
    return store_rotated(grant, mine, ISSUED, now=THE_NOW)


def rotated_by(number: int) -> Grant:
    """Returns the grant after another attempt stored what it got for my generation."""
    return some_grant(generation=8, pair_attempt=number, pair_base=7, last_attempt=14)


@pytest.mark.parametrize("state", STORABLE)
def test_a_rotated_pair_becomes_the_next_generation(state: GrantState) -> None:
    before = some_grant_under(MINE, state=state, doubt=Doubt.ABANDONED, reauth=some_reauth())

    after = changed(store(before))

    assert after == replace(
        before,
        state=GrantState.ACTIVE,
        generation=8,
        pair=TokenPair(
            access_token=ISSUED.access_token, refresh_token=ISSUED.refresh_token, generation=8
        ),
        pair_attempt=13,
        pair_base=7,
        attempt=None,
        doubt=Doubt.NONE,
        lifetime=ISSUED.lifetime,
        expires_at=ISSUED.expires_at,
        renew_at=ISSUED.renew_at,
        reauth=None,
        refreshed_at=THE_NOW,
    )


def test_a_success_ends_the_run_of_failures() -> None:
    failed = FailureRecord(kind=FailureKind.OUTCOME_UNKNOWN, code="http_502", count=3)

    assert changed(store(some_grant(failures=failed))).failures == FailureRecord()


def test_the_type_of_the_token_is_kept_as_it_was_told() -> None:
    issued = some_issue(token_type="DPoP")

    pair = changed(store_rotated(some_grant(), MINE, issued, now=THE_NOW)).pair

    assert isinstance(pair, TokenPair)
    assert pair.token_type == "DPoP"


def test_an_overdue_pair_is_stored_all_the_same() -> None:
    late = replace(MINE, deadline=THE_NOW - timedelta(hours=1))

    assert changed(store(some_grant_under(late), late)).generation == 8


@pytest.mark.parametrize("doubt", Doubt)
def test_a_success_clears_nobody_elses_attempt_and_no_doubt(doubt: Doubt) -> None:
    after = changed(store(some_grant_under(THEIRS, doubt=doubt)))

    assert (after.generation, after.pair_attempt) == (8, 13)
    assert after.attempt == THEIRS
    assert after.doubt is doubt


@pytest.mark.parametrize("doubt", Doubt)
def test_a_success_whose_attempt_is_gone_ends_no_doubt(doubt: Doubt) -> None:
    assert changed(store(some_grant(doubt=doubt))).doubt is doubt


@pytest.mark.parametrize("state", STORABLE)
def test_of_two_successes_the_later_pair_is_the_living_one(state: GrantState) -> None:
    after = changed(store(replace(rotated_by(12), state=state)))

    assert after.state is GrantState.ACTIVE
    assert (after.generation, after.pair_attempt, after.pair_base) == (9, 13, 7)


def test_of_two_successes_the_earlier_pair_is_dead() -> None:
    assert why_not(store(rotated_by(14))) is Why.MOVED_ON


@pytest.mark.parametrize("pair_base", [6, 8, None])
def test_a_pair_of_another_base_is_not_replaced(pair_base: int | None) -> None:
    """None: a consent, which a refresh never beats."""
    assert why_not(store(replace(rotated_by(12), pair_base=pair_base))) is Why.MOVED_ON


@pytest.mark.parametrize("generation", [5, 6, 9, 10])
def test_a_pair_is_stored_on_its_base_or_beside_its_twin_alone(generation: int) -> None:
    grant = replace(rotated_by(12), generation=generation)

    assert why_not(store(grant)) is Why.MOVED_ON


@pytest.mark.parametrize("consent", [14, int(THE_NOW.timestamp())], ids=["next", "after a loss"])
def test_no_twin_is_stored_over_a_consent_that_came_in_between(consent: int) -> None:
    """Nor over what that consent's pair was rotated to, under the generation that I presented."""
    consented = some_grant(generation=8, pair_attempt=consent, pair_base=None)
    rotated = some_grant(generation=8, pair_attempt=consent + 1, pair_base=7)

    for grant in (consented, rotated):
        assert why_not(store(replace(grant, consent_attempt=consent))) is Why.MOVED_ON


def test_a_generation_that_was_given_again_after_a_loss_is_no_base() -> None:
    # PostgreSQL lost what I presented, and a consent since bears its generation.
    number = int(THE_NOW.timestamp()) + 1
    consented = some_grant(pair_attempt=number, pair_base=None, consent_attempt=number)

    assert why_not(store(consented)) is Why.MOVED_ON


@pytest.mark.parametrize("state", GrantState)
def test_a_pair_whose_acknowledgement_was_lost_is_in_the_row_already(state: GrantState) -> None:
    grant = replace(rotated_by(13), state=state)

    assert why_not(store(grant)) is Why.ALREADY


def test_a_revoked_grant_takes_no_twin_either() -> None:
    assert why_not(store(replace(rotated_by(12), state=GrantState.REVOKED))) is Why.STATE


def test_silence_about_scopes_leaves_them_and_their_source() -> None:
    grant = some_grant(scopes=("a:read",), scopes_source=ScopesSource.INTROSPECTION)

    after = changed(store(grant))

    assert after.scopes == ("a:read",)
    assert after.scopes_source is ScopesSource.INTROSPECTION


@pytest.mark.parametrize("told", [(), ("b:read", "b:write")])
def test_scopes_that_are_told_are_believed(told: tuple[str, ...]) -> None:
    issued = some_issue(scopes=told, scopes_source=ScopesSource.TOKEN_RESPONSE)

    after = changed(store_rotated(some_grant(), MINE, issued, now=THE_NOW))

    assert after.scopes == told
    assert after.scopes_source is ScopesSource.TOKEN_RESPONSE


@pytest.mark.parametrize(("told", "expected"), [(None, "urn:known"), ("urn:told", "urn:told")])
def test_a_refresh_forgets_no_company(told: str | None, expected: str) -> None:
    issued = some_issue(subject=told)

    after = changed(store_rotated(some_grant(subject="urn:known"), MINE, issued, now=THE_NOW))

    assert after.subject == expected
