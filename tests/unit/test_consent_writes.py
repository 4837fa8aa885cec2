"""Consents, imports and revocations: fenced by the number of the last one (law 4)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.consent_writes import (
    claim_deletion,
    destroy_pair,
    drop_consented,
    revoke,
    store_consented,
)
from broker.domain.decision import Decision, Why
from broker.domain.grant import (
    Attempt,
    AttemptKind,
    AttemptPhase,
    Doubt,
    FailureKind,
    FailureRecord,
    Grant,
    GrantState,
    RejectionRecord,
    TokenPair,
)
from broker.domain.refresh_writes import store_rotated
from support.grants import (
    THE_NOW,
    changed,
    some_attempt,
    some_claimer,
    some_grant,
    some_grant_under,
    some_issue,
    some_pair,
    some_reauth,
    why_not,
)

MINE = some_attempt(kind=AttemptKind.EXCHANGE)
THEIRS = some_attempt(number=14, attempt_id="theirs")
ISSUED = some_issue(scopes=("b:read",), subject="urn:consented")
FAILED = FailureRecord(kind=FailureKind.OUTCOME_UNKNOWN, code="http_502", count=3)
REPORTED = RejectionRecord(generation=7, rotated_at=THE_NOW, interval=timedelta(minutes=1))
REVOCABLE = [GrantState.ACTIVE, GrantState.HELD, GrantState.REAUTH_REQUIRED]


def store(grant: Grant, mine: Attempt = MINE) -> Decision:
    return store_consented(grant, mine, ISSUED, now=THE_NOW)


@pytest.mark.parametrize("state", GrantState)
def test_a_consent_replaces_the_grant_and_ends_every_doubt(state: GrantState) -> None:
    before = some_grant_under(
        MINE,
        state=state,
        doubt=Doubt.ABANDONED,
        reauth=some_reauth(),
        failures=FAILED,
        rejection=REPORTED,
        revoked_at=THE_NOW,
    )

    after = changed(store(before))

    assert after == Grant(
        tenant="acme",
        state=GrantState.ACTIVE,
        generation=8,
        pair=TokenPair(
            access_token=ISSUED.access_token, refresh_token=ISSUED.refresh_token, generation=8
        ),
        pair_attempt=13,
        pair_base=None,
        consent_attempt=13,
        last_attempt=13,
        lifetime=ISSUED.lifetime,
        expires_at=ISSUED.expires_at,
        renew_at=ISSUED.renew_at,
        scopes=("b:read",),
        scopes_source=ISSUED.scopes_source,
        subject="urn:consented",
        refreshed_at=THE_NOW,
    )


def test_a_first_consent_makes_the_first_generation() -> None:
    first = some_attempt(number=1, base_generation=0, kind=AttemptKind.EXCHANGE)
    grant = replace(Grant(tenant="acme"), attempt=first, last_attempt=1)

    after = changed(store(grant, first))

    assert (after.state, after.generation, after.consent_attempt) == (GrantState.ACTIVE, 1, 1)


@pytest.mark.parametrize("generation", [6, 8, 20])
def test_a_consent_is_stored_whatever_generation_was_read(generation: int) -> None:
    after = changed(store(some_grant(generation=generation)))

    assert after.generation == generation + 1


def test_after_a_loss_no_generation_is_given_again_to_a_consent() -> None:
    """Of those that were lost none was above the numbers that were lost with them."""
    number = int(THE_NOW.timestamp()) + 1
    mine = replace(MINE, number=number)

    after = changed(store(some_grant(generation=7, last_attempt=number), mine))
    again = changed(store(after, replace(mine, number=number + 1)))

    assert (after.generation, again.generation) == (number, number + 1)


def test_an_overdue_consent_is_stored_all_the_same() -> None:
    late = replace(MINE, deadline=THE_NOW - timedelta(hours=1))

    assert changed(store(some_grant_under(late), late)).consent_attempt == 13


def test_a_consent_beats_the_pair_of_a_refresh_that_was_claimed_after_it() -> None:
    assert changed(store(some_grant(pair_attempt=14))).pair_attempt == 13


def test_a_consent_is_stored_over_an_earlier_one_alone() -> None:
    assert changed(store(some_grant(consent_attempt=12))).consent_attempt == 13
    assert why_not(store(some_grant(consent_attempt=14))) is Why.MOVED_ON


@pytest.mark.parametrize("state", GrantState)
def test_a_consent_whose_acknowledgement_was_lost_is_in_the_row(state: GrantState) -> None:
    assert why_not(store(some_grant(state=state, pair_attempt=13))) is Why.ALREADY


def test_a_consent_whose_pair_was_rotated_since_is_in_the_row_all_the_same() -> None:
    consented = changed(store(some_grant_under(MINE)))
    refresh = some_attempt(number=14, base_generation=8)
    rotated = changed(store_rotated(consented, refresh, some_issue(), now=THE_NOW))

    assert why_not(store(rotated)) is Why.ALREADY


def test_a_consent_clears_nobody_elses_attempt() -> None:
    after = changed(store(some_grant_under(THEIRS, doubt=Doubt.ABANDONED)))

    assert after.attempt == THEIRS
    assert after.doubt is Doubt.NONE


def test_a_consent_forgets_the_company_before_it() -> None:
    issued = some_issue(subject=None)

    assert changed(store_consented(some_grant(), MINE, issued, now=THE_NOW)).subject is None


def test_an_import_is_remembered_by_its_fingerprint() -> None:
    imported = store_consented(
        some_grant(), MINE, ISSUED, import_fingerprint=b"another", now=THE_NOW
    )

    assert changed(imported).import_fingerprint == b"another"


def test_no_refresh_of_the_old_grant_is_stored_over_a_consent() -> None:
    refresh = some_attempt(number=15)
    consented = changed(store(some_grant_under(MINE)))

    assert why_not(store_rotated(consented, refresh, some_issue(), now=THE_NOW)) is Why.MOVED_ON


@pytest.mark.parametrize(
    ("known", "consented", "doubt"),
    [
        pytest.param("urn:a", None, Doubt.DISCLAIMED, id="nobody knows whose the consent was"),
        pytest.param("urn:a", "urn:a", Doubt.DISCLAIMED, id="the same company's"),
        pytest.param(None, "urn:b", Doubt.DISCLAIMED, id="nobody knows whose the grant is"),
        pytest.param("urn:a", "urn:b", Doubt.NONE, id="another company's"),
    ],
)
def test_a_dropped_consent_leaves_doubt_unless_it_was_anothers(
    known: str | None, consented: str | None, doubt: Doubt
) -> None:
    before = some_grant_under(MINE, subject=known)

    after = changed(drop_consented(before, MINE, subject=consented))

    assert after == replace(before, attempt=None, doubt=doubt)


def test_a_dropped_consent_lets_no_other_attempt_go() -> None:
    grant = some_grant_under(THEIRS)

    assert why_not(drop_consented(grant, MINE, subject=None)) is Why.NOT_OWN


@pytest.mark.parametrize("state", REVOCABLE)
def test_a_revocation_leaves_a_tombstone_without_tokens(state: GrantState) -> None:
    before = some_grant_under(
        MINE, state=state, doubt=Doubt.ABANDONED, reauth=some_reauth(), failures=FAILED
    )

    after = changed(revoke(before, now=THE_NOW))

    assert after == replace(
        before,
        state=GrantState.REVOKED,
        generation=8,
        pair=None,
        pair_base=None,
        consent_attempt=14,
        last_attempt=14,
        doubt=Doubt.NONE,
        expires_at=None,
        renew_at=None,
        reauth=None,
        failures=FailureRecord(),
        revoked_at=THE_NOW,
    )


def test_a_revocation_may_keep_the_pair_for_the_deletion_at_pleo() -> None:
    before = some_grant()

    after = changed(revoke(before, keeps_pair=True, now=THE_NOW))

    assert (after.pair, after.expires_at) == (some_pair(7), before.expires_at)
    assert (after.renew_at, after.generation) == (None, 8)


def test_a_grant_is_revoked_once() -> None:
    revoked = changed(revoke(some_grant(), now=THE_NOW))

    assert why_not(revoke(revoked, now=THE_NOW)) is Why.ALREADY


def test_there_is_nothing_to_revoke_before_the_first_consent() -> None:
    assert why_not(revoke(Grant(tenant="acme"), now=THE_NOW)) is Why.STATE


def test_a_consent_that_began_before_a_revocation_does_not_resurrect() -> None:
    revoked = changed(revoke(some_grant_under(MINE), now=THE_NOW))

    assert why_not(store(revoked)) is Why.MOVED_ON


def test_a_consent_that_began_after_a_revocation_connects_again() -> None:
    revoked = changed(revoke(some_grant(), now=THE_NOW))
    next_one = some_attempt(number=14, kind=AttemptKind.EXCHANGE)

    after = changed(store(revoked, next_one))

    assert (after.state, after.generation, after.revoked_at) == (GrantState.ACTIVE, 9, None)


def test_no_refresh_brings_a_revoked_grant_back() -> None:
    refresh = some_attempt()
    revoked = changed(revoke(some_grant_under(refresh), now=THE_NOW))

    assert why_not(store_rotated(revoked, refresh, some_issue(), now=THE_NOW)) is Why.STATE


def test_the_tokens_of_a_revoked_grant_are_destroyed_once() -> None:
    revoked = changed(revoke(some_grant(), keeps_pair=True, now=THE_NOW))

    after = changed(destroy_pair(revoked))

    assert after == replace(revoked, pair=None, expires_at=None)
    assert why_not(destroy_pair(after)) is Why.ALREADY


def test_the_tokens_of_a_living_grant_are_not_destroyed() -> None:
    assert why_not(destroy_pair(some_grant())) is Why.STATE


REVOKED = some_grant(state=GrantState.REVOKED, revoked_at=THE_NOW, expires_at=THE_NOW)


def claim(grant: Grant, *, generation: int = 7) -> Decision:
    return claim_deletion(grant, some_claimer(), generation=generation, now=THE_NOW)


def test_a_deletion_is_claimed_and_presents_nothing() -> None:
    after = changed(claim(REVOKED))

    assert after.attempt is not None
    assert (after.attempt.number, after.attempt.phase) == (13, AttemptPhase.CLAIMED)
    assert replace(after, attempt=None, last_attempt=12) == REVOKED


@pytest.mark.parametrize(
    ("grant", "why"),
    [
        pytest.param(some_grant(), Why.MOVED_ON, id="a consent came since"),
        pytest.param(replace(REVOKED, generation=9), Why.MOVED_ON, id="revoked again since"),
        pytest.param(replace(REVOKED, attempt=MINE), Why.ATTEMPT_LIVE, id="a consent under way"),
        pytest.param(replace(REVOKED, pair=None), Why.NO_TOKEN, id="the tokens are destroyed"),
    ],
)
def test_a_deletion_is_not_claimed_beside_anything_else(grant: Grant, why: Why) -> None:
    assert why_not(claim(grant)) is why


def test_with_the_tokens_the_attempt_that_deleted_ends_and_no_other() -> None:
    deleting = some_grant_under(THEIRS, state=GrantState.REVOKED, revoked_at=THE_NOW)

    assert changed(destroy_pair(deleting, THEIRS)).attempt is None
    assert changed(destroy_pair(deleting, MINE)).attempt == THEIRS
