"""The fleet guard: when it begins to hold, who ends it, and which refusals belong to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.evidence import GUARD_WINDOW, Evidence
from broker.domain.guard import (
    BROKER,
    Canary,
    Guard,
    GuardState,
    Release,
    decide,
    decide_when_due,
    finish,
    hold,
    is_recent,
    trips,
)
from support.grants import A_TICK, THE_NOW

HOLD_FOR = timedelta(hours=4)
HOLDING = hold(Guard(), now=THE_NOW, hold_for=HOLD_FOR)
CANARY = Canary(tenant="acme", generation=7, refused_at=THE_NOW)


def evidence(*, refused: int, answered: int) -> Evidence:
    return Evidence(
        at=THE_NOW,
        refused_grants=refused,
        answered=answered,
        unknown_grants=0,
        limited_grants=0,
        sent=answered,
    )


def decided(guard: Guard, release: Release) -> Guard:
    return decide(guard, release, now=THE_NOW, by="anna", reason="we saw it")


@pytest.mark.parametrize(
    ("refused", "answered", "is_many"),
    [(4, 4, False), (5, 5, True), (5, 25, True), (5, 26, False), (6, 30, True), (6, 31, False)],
)
def test_five_grants_and_a_fifth_of_all_are_too_many(
    refused: int, answered: int, *, is_many: bool
) -> None:
    assert trips(evidence(refused=refused, answered=answered)) is is_many


def test_it_holds_until_somebody_has_had_time_to_decide() -> None:
    assert Guard(state=GuardState.HOLDING, since=THE_NOW, until=THE_NOW + HOLD_FOR) == HOLDING


def test_further_refusals_prolong_no_hold() -> None:
    holding = replace(HOLDING, canary=CANARY)

    assert hold(holding, now=THE_NOW + HOLD_FOR, hold_for=HOLD_FOR) == holding


@pytest.mark.parametrize(
    ("release", "state"),
    [(Release.CONFIRM, GuardState.CONFIRMING), (Release.DISCARD, GuardState.DISCARDING)],
)
def test_an_engineer_ends_a_hold(release: Release, state: GuardState) -> None:
    after = decided(HOLDING, release)

    assert after.state is state
    assert (after.counted_from, after.decided_by, after.reason) == (THE_NOW, "anna", "we saw it")


@pytest.mark.parametrize("state", sorted(set(GuardState) - {GuardState.HOLDING}))
def test_without_a_hold_there_is_nothing_to_confirm(state: GuardState) -> None:
    guard = Guard(state=state)

    assert decided(guard, Release.CONFIRM) == guard


@pytest.mark.parametrize("state", GuardState)
def test_to_discard_is_possible_at_any_time(state: GuardState) -> None:
    assert decided(Guard(state=state), Release.DISCARD).state is GuardState.DISCARDING


def test_nobody_decides_in_time_and_the_refusals_count() -> None:
    early = decide_when_due(HOLDING, now=THE_NOW + HOLD_FOR - A_TICK)
    due = decide_when_due(HOLDING, now=THE_NOW + HOLD_FOR)

    assert early == HOLDING
    assert (due.state, due.decided_by) == (GuardState.CONFIRMING, BROKER)


@pytest.mark.parametrize("state", sorted(set(GuardState) - {GuardState.HOLDING}))
def test_time_alone_decides_nothing_but_a_hold(state: GuardState) -> None:
    guard = Guard(state=state, until=THE_NOW)

    assert decide_when_due(guard, now=THE_NOW) == guard


def test_a_hold_without_an_end_is_not_ended_by_time() -> None:
    guard = Guard(state=GuardState.HOLDING)

    assert decide_when_due(guard, now=THE_NOW) == guard


def test_once_all_are_released_it_watches_and_counts_anew() -> None:
    ended = decided(replace(HOLDING, canary=CANARY), Release.DISCARD)

    assert finish(ended) == Guard(counted_from=THE_NOW)


def test_a_new_hold_follows_a_release_that_is_not_over() -> None:
    later = THE_NOW + timedelta(hours=1)

    again = hold(decided(HOLDING, Release.CONFIRM), now=later, hold_for=HOLD_FOR)

    assert again == Guard(
        state=GuardState.HOLDING, since=later, until=later + HOLD_FOR, counted_from=THE_NOW
    )


def test_what_was_refused_in_its_window_belongs_to_a_hold() -> None:
    assert is_recent(THE_NOW - GUARD_WINDOW, HOLDING)
    assert not is_recent(THE_NOW - GUARD_WINDOW - A_TICK, HOLDING)


def test_what_was_decided_on_before_belongs_to_no_later_hold() -> None:
    decided_at = THE_NOW - timedelta(minutes=1)
    holding = replace(HOLDING, counted_from=decided_at)

    assert is_recent(decided_at, holding)
    assert not is_recent(decided_at - A_TICK, holding)


def test_an_old_decision_does_not_widen_the_window() -> None:
    holding = replace(HOLDING, counted_from=THE_NOW - timedelta(days=1))

    assert not is_recent(THE_NOW - GUARD_WINDOW - A_TICK, holding)


@pytest.mark.parametrize("state", sorted(set(GuardState) - {GuardState.HOLDING}))
def test_without_a_hold_no_refusal_belongs_to_one(state: GuardState) -> None:
    assert not is_recent(THE_NOW, replace(HOLDING, state=state))
    assert not is_recent(THE_NOW, Guard(state=GuardState.HOLDING))
