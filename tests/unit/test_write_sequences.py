"""Whatever happens in whatever order: what no sequence of writes may do to a grant.

The sequences are wilder than the broker: any write by any attempt there ever was, late, twice, and
of the wrong kind. What holds here does not depend on who calls what when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.domain.consent_writes import claim_consent, destroy_pair, revoke, store_consented
from broker.domain.decision import TRANSITIONS, Changed, Decision, Why, Write
from broker.domain.grant import Attempt, AttemptKind, Doubt, FailureRecord, Grant, GrantState
from broker.domain.refresh_writes import (
    arm,
    call_unknown,
    claim_refresh,
    let_go,
    refuse,
    store_rotated,
)
from support.grants import THE_NOW, some_attempt, some_claimer, some_grant, some_issue

SPAN = timedelta(seconds=30)


@dataclass(slots=True, kw_only=True)
class World:
    """One grant, its clock, and every attempt that was ever claimed on it."""

    grant: Grant
    now: datetime = THE_NOW
    attempts: list[Attempt] = field(default_factory=list)

    def attempt(self, index: int) -> Attempt:
        """Returns one of the attempts, or one that never was."""
        if not self.attempts:
            return some_attempt(number=0, attempt_id="nobody", base_generation=0)
        return self.attempts[-1 - index % len(self.attempts)]


Act = Callable[[World, int], Decision]


def _claim_refresh(world: World, index: int) -> Decision:
    claimer = some_claimer(attempt_id=f"claimer-{index}", deadline=world.now + SPAN)
    generation = world.grant.generation
    return claim_refresh(world.grant, claimer, generation=generation, now=world.now)


def _claim_consent(world: World, index: int) -> Decision:
    claimer = some_claimer(
        attempt_id=f"consent-{index}", kind=AttemptKind.EXCHANGE, deadline=world.now + SPAN
    )
    return claim_consent(world.grant, claimer, now=world.now)


def _arm(world: World, index: int) -> Decision:
    return arm(world.grant, world.attempt(index), deadline=world.now + SPAN, now=world.now)


def _store_rotated(world: World, index: int) -> Decision:
    return store_rotated(world.grant, world.attempt(index), some_issue(), now=world.now)


def _store_consented(world: World, index: int) -> Decision:
    return store_consented(world.grant, world.attempt(index), some_issue(), now=world.now)


def _refuse(world: World, index: int) -> Decision:
    return refuse(world.grant, world.attempt(index), provider_error="e", now=world.now)


def _call_unknown(world: World, index: int) -> Decision:
    return call_unknown(world.grant, world.attempt(index), failures=FailureRecord(count=1))


ACTS: dict[str, Act] = {
    Write.CLAIM_REFRESH.name: _claim_refresh,
    Write.STORE_ROTATED.name: _store_rotated,
    Write.REFUSE.name: _refuse,
    Write.STORE_CONSENTED.name: _store_consented,
    Write.REVOKE.name: lambda world, index: revoke(
        world.grant, keeps_pair=index % 2 == 1, now=world.now
    ),
    "CLAIM_CONSENT": _claim_consent,
    "ARM": _arm,
    "CALL_UNKNOWN": _call_unknown,
    "LET_GO": lambda world, index: let_go(world.grant, world.attempt(index)),
    "DESTROY_PAIR": lambda world, _index: destroy_pair(world.grant),
}

CLAIMS = {Write.CLAIM_REFRESH.name, "CLAIM_CONSENT"}
ENDS_DOUBT = {Write.STORE_ROTATED.name, Write.STORE_CONSENTED.name, Write.REVOKE.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One write that changed the row."""

    act: str
    before: Grant
    after: Grant
    now: datetime
    mine: Attempt
    """The attempt that was named, where the act names one."""


def played(start: Grant, script: list[tuple[str, int, int]]) -> list[Step]:
    """Returns what a sequence of (act, which attempt, seconds later) changed."""
    world = World(grant=start)
    steps = []
    for act, index, seconds in script:
        world.now += timedelta(seconds=seconds)
        before, mine = world.grant, world.attempt(index)
        decision = ACTS[act](world, index)
        if not isinstance(decision, Changed):
            assert decision.why in Why
            continue
        world.grant = decision.after
        if act in CLAIMS and world.grant.attempt is not None:
            world.attempts.append(world.grant.attempt)
        steps.append(Step(act=act, before=before, after=world.grant, now=world.now, mine=mine))
    return steps


STARTS = st.sampled_from([Grant(tenant="acme"), some_grant()])
SCRIPTS = st.lists(
    st.tuples(st.sampled_from(sorted(ACTS)), st.integers(0, 3), st.sampled_from([0, 1, 29, 31])),
    min_size=1,
    max_size=40,
)
STEPS = st.builds(played, STARTS, SCRIPTS)

whatever_happens = given(steps=STEPS)
thoroughly = settings(max_examples=100, deadline=None)


@thoroughly
@whatever_happens
def test_numbers_never_go_back(steps: list[Step]) -> None:
    for step in steps:
        assert step.after.generation >= step.before.generation
        assert step.after.last_attempt >= step.before.last_attempt
        assert step.after.consent_attempt >= step.before.consent_attempt


@thoroughly
@whatever_happens
def test_no_number_is_given_twice(steps: list[Step]) -> None:
    numbers = [step.after.last_attempt for step in steps if step.act in CLAIMS]

    assert len(numbers) == len(set(numbers))
    assert all(step.after.last_attempt >= step.after.consent_attempt for step in steps)


@thoroughly
@whatever_happens
def test_a_pair_is_never_replaced_within_its_generation(steps: list[Step]) -> None:
    for step in steps:
        is_new = step.after.pair not in (step.before.pair, None)
        assert is_new is (step.act in {"STORE_ROTATED", "STORE_CONSENTED"})
        assert not is_new or step.after.generation == step.before.generation + 1


@thoroughly
@whatever_happens
def test_doubt_falls_only_with_a_success_or_the_end(steps: list[Step]) -> None:
    for step in steps:
        if step.after.doubt < step.before.doubt:
            assert step.act in ENDS_DOUBT
            assert step.act != "STORE_ROTATED" or step.before.owns(step.mine.number)


@thoroughly
@whatever_happens
def test_a_state_changes_only_as_the_table_says(steps: list[Step]) -> None:
    writes = {write.name: TRANSITIONS[write] for write in Write}
    for step in steps:
        if step.act in writes and step.after.state is not step.before.state:
            assert writes[step.act][step.before.state] is step.after.state
        elif step.act not in writes:
            assert step.after.state is step.before.state


@thoroughly
@whatever_happens
def test_a_revoked_grant_is_left_by_a_later_consent_alone(steps: list[Step]) -> None:
    for step in steps:
        if step.before.state is GrantState.REVOKED and step.after.state is not GrantState.REVOKED:
            assert step.act == "STORE_CONSENTED"
            assert step.mine.number > step.before.consent_attempt


@thoroughly
@whatever_happens
def test_no_pair_is_older_than_the_consent_beside_it(steps: list[Step]) -> None:
    """So whoever compares with the pair's attempt has compared with the last consent too."""
    for step in steps:
        if step.after.state is not GrantState.REVOKED:
            assert step.after.pair_attempt >= step.after.consent_attempt


@thoroughly
@whatever_happens
def test_a_live_attempt_is_touched_by_its_owner_alone(steps: list[Step]) -> None:
    for step in steps:
        attempt = step.before.attempt
        if attempt is None or attempt == step.after.attempt or not attempt.is_live(step.now):
            continue
        if step.act in CLAIMS:
            assert step.after.attempt is not None
            assert step.after.attempt.attempt_id == attempt.attempt_id
        else:
            assert step.mine.number == attempt.number


@thoroughly
@whatever_happens
def test_a_customer_must_act_only_after_pleos_word_to_the_owner(steps: list[Step]) -> None:
    for step in steps:
        if step.after.state is GrantState.REAUTH_REQUIRED:
            assert step.after.reauth is not None
        if step.after.state is not step.before.state is GrantState.ACTIVE and step.act == "REFUSE":
            assert step.before.owns(step.mine.number)
            assert step.before.generation == step.mine.base_generation


FIRST_CONSENT = [("CLAIM_CONSENT", 0, 0), ("STORE_CONSENTED", 0, 1)]


@pytest.mark.parametrize(
    ("script", "state", "doubt"),
    [
        (FIRST_CONSENT, GrantState.ACTIVE, Doubt.NONE),
        (
            [*FIRST_CONSENT, ("CLAIM_REFRESH", 0, 0), ("REFUSE", 0, 0)],
            GrantState.REAUTH_REQUIRED,
            Doubt.NONE,
        ),
        (
            [*FIRST_CONSENT, ("CLAIM_REFRESH", 0, 0), ("CLAIM_REFRESH", 1, 31), ("ARM", 0, 20)],
            GrantState.ACTIVE,
            Doubt.ABANDONED,
        ),
        (
            [*FIRST_CONSENT, ("CLAIM_REFRESH", 0, 0), ("CALL_UNKNOWN", 0, 9), ("REVOKE", 0, 0)],
            GrantState.REVOKED,
            Doubt.NONE,
        ),
    ],
)
def test_sequences_come_as_far_as_they_should(
    script: list[tuple[str, int, int]], state: GrantState, doubt: Doubt
) -> None:
    steps = played(Grant(tenant="acme"), script)

    assert [step.act for step in steps] == [act for act, _, _ in script]
    assert (steps[-1].after.state, steps[-1].after.doubt) == (state, doubt)
