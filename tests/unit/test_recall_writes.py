"""Writing back what PostgreSQL has lost: only what is newer, however much was lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import combinations, permutations
from typing import Final

import pytest

from broker.domain.claims import new_attempt
from broker.domain.consent_writes import claim_consent, revoke, store_consented
from broker.domain.decision import Changed, Why
from broker.domain.grant import AttemptKind, AttemptPhase, Doubt, Grant, GrantState, RejectionRecord
from broker.domain.past import Past, in_doubt
from broker.domain.recall_writes import is_newer, write_back
from broker.domain.refresh_writes import claim_refresh, store_rotated
from support.grants import (
    THE_NOW,
    changed,
    some_attempt,
    some_claimer,
    some_grant,
    some_issue,
    some_pair,
    some_reauth,
    why_not,
)

SPAN: Final = timedelta(seconds=30)


def rotated(row: Grant) -> Grant:
    """The row after one more refresh."""
    claimed = changed(claim_refresh(row, some_claimer(), generation=row.generation, now=THE_NOW))
    assert claimed.attempt is not None
    return changed(store_rotated(claimed, claimed.attempt, some_issue(), now=THE_NOW))


def consented(row: Grant) -> Grant:
    """The row after one more consent, of another company."""
    claimer = some_claimer(kind=AttemptKind.EXCHANGE)
    claimed = changed(claim_consent(row, claimer, now=THE_NOW))
    assert claimed.attempt is not None
    issue = some_issue(subject=f"company {claimed.last_attempt}")
    return changed(store_consented(claimed, claimed.attempt, issue, now=THE_NOW))


def revoked(row: Grant) -> Grant:
    """The row after its revocation."""
    return changed(revoke(row, now=THE_NOW))


def lost(row: Grant) -> Grant:
    """The row as it counts where newer commits were lost."""
    past = Past(live="two", known="two", since=THE_NOW)
    return in_doubt(row, past, span=SPAN, now=THE_NOW)


def histories() -> Iterator[list[Grant]]:
    """Rows as they were stored one after the other: refreshes, consents, a revocation."""
    rows = [some_grant()]
    for step in (rotated, rotated, consented, rotated, revoked):
        rows.append(step(rows[-1]))
    yield rows[:-1]
    yield rows
    yield [*rows, consented(rows[-1])]


def everything_lost_and_kept() -> Iterator[tuple[Grant, tuple[Grant, ...]]]:
    """Every prefix that may be left, with every set of rows that replicas may have kept."""
    for rows in histories():
        for left in range(1, len(rows)):
            for count in range(1, 4):
                for kept in combinations(rows, count):
                    yield rows[left - 1], kept


def test_whoever_writes_back_first_the_newest_that_is_kept_remains() -> None:
    for left, kept in everything_lost_and_kept():
        newest = max((left, *kept), key=lambda row: (row.consent_attempt, row.pair_attempt))
        for order in permutations(kept):
            row = lost(left)
            for each in order:
                decision = write_back(each, row, now=THE_NOW)
                row = lost(decision.after) if isinstance(decision, Changed) else row

            assert (row.state, row.generation) == (newest.state, newest.generation)
            assert (row.subject, row.pair) == (newest.subject, newest.pair)


def test_what_was_presented_after_the_loss_gives_way_to_a_newer_consent_alone() -> None:
    for left, kept in everything_lost_and_kept():
        if left.state is GrantState.ACTIVE:
            row = rotated(with_armed(lost(left)))
            for each in kept:
                is_written = isinstance(write_back(each, row, now=THE_NOW), Changed)
                assert is_written is (each.consent_attempt > left.consent_attempt)


def test_a_consent_after_the_loss_gives_way_to_nothing() -> None:
    for left, kept in everything_lost_and_kept():
        row = consented(lost(left))
        for each in kept:
            assert why_not(write_back(each, row, now=THE_NOW)) is Why.MOVED_ON


def with_armed(row: Grant) -> Grant:
    """The row without its doubt, so that a claim of it is armed at once."""
    return replace(row, doubt=Doubt.NONE)


def test_what_is_written_back_is_in_doubt_and_has_no_old_attempt() -> None:
    kept = rotated(some_grant())
    claim = replace(some_attempt(number=kept.pair_attempt), phase=AttemptPhase.ARMED)
    row = replace(some_grant(), attempt=claim, last_attempt=claim.number)

    after = changed(write_back(kept, row, now=THE_NOW))

    assert (after.doubt, after.attempt) == (Doubt.ABANDONED, None)


@pytest.mark.parametrize(
    ("phase", "is_allowed"), [(AttemptPhase.ARMED, False), (AttemptPhase.CLAIMED, True)]
)
def test_only_an_armed_attempt_of_another_is_waited_for(
    phase: AttemptPhase, *, is_allowed: bool
) -> None:
    row = lost(some_grant())
    theirs = new_attempt(row, some_claimer(), phase, THE_NOW)
    row = replace(row, attempt=theirs, last_attempt=theirs.number)

    decision = write_back(rotated(some_grant()), row, now=THE_NOW)

    assert isinstance(decision, Changed) is is_allowed
    if isinstance(decision, Changed):
        assert decision.after.attempt == theirs
    else:
        assert decision.why is Why.ATTEMPT_LIVE


def test_a_pair_that_has_just_come_waits_for_nobody() -> None:
    row = lost(some_grant())
    theirs = new_attempt(row, some_claimer(), AttemptPhase.ARMED, THE_NOW)
    row = replace(row, attempt=theirs)

    assert changed(write_back(rotated(some_grant()), row, now=None)).generation == 8


def test_a_refusal_meanwhile_does_not_stand_in_the_way() -> None:
    refused = replace(
        lost(some_grant()), state=GrantState.REAUTH_REQUIRED, reauth=some_reauth(), pair=None
    )

    after = changed(write_back(rotated(some_grant()), refused, now=THE_NOW))

    assert (after.state, after.reauth) == (GrantState.ACTIVE, None)


def test_numbers_and_rejections_go_on_from_the_higher_ones() -> None:
    kept = rotated(some_grant())
    row = replace(lost(some_grant()), rejection=RejectionRecord(generation=7))

    after = changed(write_back(kept, row, now=THE_NOW))

    assert after.last_attempt == row.last_attempt > kept.last_attempt
    assert after.rejection.generation == 7


def test_the_pair_is_stored_under_the_generation_that_it_gets() -> None:
    kept = replace(rotated(some_grant()), generation=8, pair=some_pair(8))
    row = replace(some_grant(), generation=8)

    after = changed(write_back(kept, row, now=THE_NOW))

    assert after.pair is not None
    assert (after.generation, after.pair.generation) == (9, 9)


def test_the_row_itself_is_not_newer_than_itself() -> None:
    assert not is_newer(some_grant(), some_grant())


def test_a_number_is_not_given_again_when_only_its_claim_was_lost() -> None:
    mine = some_attempt(number=13)

    refreshed = changed(store_rotated(some_grant(), mine, some_issue(), now=THE_NOW))
    connected = changed(store_consented(some_grant(), mine, some_issue(), now=THE_NOW))

    assert (refreshed.last_attempt, connected.last_attempt) == (13, 13)
