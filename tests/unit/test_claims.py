"""Claims: one presenter at a time (law 1), and what becomes doubt when an attempt is replaced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.domain.claims import Claimer
from broker.domain.consent_writes import claim_consent
from broker.domain.decision import Decision, Why
from broker.domain.grant import (
    Attempt,
    AttemptKind,
    AttemptPhase,
    Doubt,
    Grant,
    TokenPair,
    UnreadablePair,
)
from broker.domain.refresh_writes import claim_refresh
from support.grants import (
    A_TICK,
    THE_NOW,
    changed,
    some_attempt,
    some_claimer,
    some_grant,
    some_grant_under,
    some_pair,
    why_not,
)

CLAIMED = AttemptPhase.CLAIMED
ARMED = AttemptPhase.ARMED
UNKNOWN = AttemptPhase.UNKNOWN
PRESENTED = [AttemptKind.EXCHANGE, AttemptKind.IMPORT]


def claim(grant: Grant, claimer: Claimer) -> Decision:
    """Claims as its kind is claimed, of the generation on the row."""
    if claimer.kind is AttemptKind.REFRESH:
        return claim_refresh(grant, claimer, generation=grant.generation, now=THE_NOW)
    return claim_consent(grant, claimer, now=THE_NOW)


def passed(phase: AttemptPhase, kind: AttemptKind = AttemptKind.REFRESH) -> Attempt:
    """Returns somebody's attempt whose deadline has just passed."""
    return some_attempt(attempt_id="theirs", phase=phase, kind=kind, deadline=THE_NOW)


@pytest.mark.parametrize("kind", AttemptKind)
def test_a_claim_puts_the_next_attempt_on_the_row(kind: AttemptKind) -> None:
    claimer = some_claimer(kind=kind)

    after = changed(claim(some_grant(last_attempt=12), claimer))

    assert after.attempt == Attempt(
        number=13,
        attempt_id=claimer.attempt_id,
        kind=kind,
        base_generation=7,
        deadline=claimer.deadline,
        phase=ARMED,
        started_at=THE_NOW,
        replica=claimer.replica,
    )
    assert after == replace(some_grant(), attempt=after.attempt, last_attempt=13)


@pytest.mark.parametrize("kind", AttemptKind)
@pytest.mark.parametrize("phase", AttemptPhase)
def test_a_live_attempt_of_somebody_else_blocks(kind: AttemptKind, phase: AttemptPhase) -> None:
    theirs = some_attempt(attempt_id="theirs", phase=phase, deadline=THE_NOW + A_TICK)

    decision = claim(some_grant_under(theirs), some_claimer(kind=kind))

    assert why_not(decision) is Why.ATTEMPT_LIVE


@pytest.mark.parametrize("kind", AttemptKind)
@pytest.mark.parametrize("phase", AttemptPhase)
def test_an_attempt_at_its_deadline_blocks_nobody(kind: AttemptKind, phase: AttemptPhase) -> None:
    after = changed(claim(some_grant_under(passed(phase)), some_claimer(kind=kind)))

    assert after.attempt is not None
    assert (after.attempt.number, after.attempt.attempt_id) == (14, "claimer")


@pytest.mark.parametrize("kind", AttemptKind)
@pytest.mark.parametrize("doubt", Doubt)
def test_a_claim_whose_acknowledgement_was_lost_is_made_again(
    kind: AttemptKind, doubt: Doubt
) -> None:
    lost = some_attempt(attempt_id="claimer", kind=kind)

    after = changed(claim(some_grant_under(lost, doubt=doubt), some_claimer(kind=kind)))

    assert after.attempt is not None
    assert (after.attempt.number, after.last_attempt) == (14, 14)
    assert after.doubt is doubt


@pytest.mark.parametrize("kind", AttemptKind)
@pytest.mark.parametrize("replaced", AttemptKind)
@pytest.mark.parametrize(
    ("phase", "before", "expected"),
    [
        (CLAIMED, Doubt.NONE, Doubt.NONE),
        (CLAIMED, Doubt.DISCLAIMED, Doubt.DISCLAIMED),
        (CLAIMED, Doubt.ABANDONED, Doubt.ABANDONED),
        (ARMED, Doubt.NONE, Doubt.ABANDONED),
        (ARMED, Doubt.DISCLAIMED, Doubt.ABANDONED),
        (ARMED, Doubt.ABANDONED, Doubt.ABANDONED),
        (UNKNOWN, Doubt.NONE, Doubt.DISCLAIMED),
        (UNKNOWN, Doubt.DISCLAIMED, Doubt.DISCLAIMED),
        (UNKNOWN, Doubt.ABANDONED, Doubt.ABANDONED),
    ],
)
def test_doubt_only_rises_with_the_attempt_that_is_replaced(
    *, kind: AttemptKind, replaced: AttemptKind, phase: AttemptPhase, before: Doubt, expected: Doubt
) -> None:
    grant = some_grant_under(passed(phase, replaced), doubt=before)

    assert changed(claim(grant, some_claimer(kind=kind))).doubt is expected


@pytest.mark.parametrize("kind", AttemptKind)
@pytest.mark.parametrize("doubt", Doubt)
def test_doubt_outlives_the_attempt_it_came_from(kind: AttemptKind, doubt: Doubt) -> None:
    assert changed(claim(some_grant(doubt=doubt), some_claimer(kind=kind))).doubt is doubt


@pytest.mark.parametrize(
    ("doubt", "phase"),
    [(Doubt.NONE, ARMED), (Doubt.DISCLAIMED, ARMED), (Doubt.ABANDONED, CLAIMED)],
)
def test_only_abandoned_doubt_keeps_a_refresh_from_the_wire(
    doubt: Doubt, phase: AttemptPhase
) -> None:
    after = changed(claim(some_grant(doubt=doubt), some_claimer()))

    assert after.attempt is not None
    assert after.attempt.phase is phase


@pytest.mark.parametrize("kind", PRESENTED)
@pytest.mark.parametrize("doubt", Doubt)
def test_a_consent_is_armed_whatever_is_in_doubt(kind: AttemptKind, doubt: Doubt) -> None:
    """It presents another token: no quarantine can spare it anything."""
    after = changed(claim(some_grant(doubt=doubt), some_claimer(kind=kind)))

    assert after.attempt is not None
    assert after.attempt.phase is ARMED


@pytest.mark.parametrize("read", [6, 8])
def test_a_refresh_of_another_generation_than_was_read_is_not_claimed(read: int) -> None:
    decision = claim_refresh(some_grant(), some_claimer(), generation=read, now=THE_NOW)

    assert why_not(decision) is Why.MOVED_ON


@pytest.mark.parametrize(
    "pair",
    [
        None,
        UnreadablePair(generation=7, key_id=1, is_key_missing=True),
        replace(some_pair(7), refresh_token=None),
    ],
)
def test_a_refresh_without_a_refresh_token_is_not_claimed(
    pair: TokenPair | UnreadablePair | None,
) -> None:
    assert why_not(claim(some_grant(pair=pair), some_claimer())) is Why.NO_TOKEN


@pytest.mark.parametrize("kind", PRESENTED)
def test_a_consent_is_claimed_where_nobody_was_ever_connected(kind: AttemptKind) -> None:
    after = changed(claim(Grant(tenant="acme"), some_claimer(kind=kind)))

    assert after.attempt is not None
    assert (after.attempt.number, after.attempt.base_generation) == (1, 0)
