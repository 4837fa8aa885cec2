"""The fleet guard's writes: when each is allowed, and that none destroys what may be wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.decision import Changed, Decision, Why
from broker.domain.evidence import GUARD_WINDOW
from broker.domain.grant import (
    Doubt,
    Grant,
    GrantState,
    Reauth,
    ReauthCause,
    TokenPair,
    UnreadablePair,
)
from broker.domain.guard import Guard, GuardState, Release, decide, finish, hold
from broker.domain.guard_writes import (
    confirm,
    destroy_refused,
    discard,
    hold_back,
)
from support.grants import (
    A_TICK,
    THE_NOW,
    changed,
    some_attempt,
    some_grant,
    some_grant_under,
    some_pair,
    some_reauth,
    why_not,
)

HELD = GrantState.HELD
REAUTH = GrantState.REAUTH_REQUIRED
QUARANTINE = timedelta(seconds=20)
KEEP_FOR = timedelta(days=7)
HOLDING = hold(Guard(), now=THE_NOW, hold_for=timedelta(hours=4))
DESTROYED = UnreadablePair(generation=7, key_id=1, is_key_missing=True)


def held_grant() -> Grant:
    return some_grant(state=HELD, reauth=some_reauth())


def refused_grant() -> Grant:
    return some_grant(state=REAUTH, reauth=some_reauth())


def given_up_grant() -> Grant:
    return some_grant(state=REAUTH, reauth=some_reauth(), quarantined_until=THE_NOW + KEEP_FOR)


def confirmed(grant: Grant, *, now: datetime = THE_NOW + QUARANTINE) -> Decision:
    return confirm(grant, generation=7, quarantine=QUARANTINE, keep_for=KEEP_FOR, now=now)


def test_what_was_believed_shortly_before_is_held_back() -> None:
    held = changed(hold_back(refused_grant(), HOLDING))

    assert held == held_grant()


def test_a_lost_rotation_is_held_back_too_and_stays_one() -> None:
    lost = Reauth(cause=ReauthCause.ROTATION_LOST, since=THE_NOW)

    held = changed(hold_back(some_grant(state=REAUTH, reauth=lost), HOLDING))

    assert held.reauth == lost


def test_what_an_operator_ended_is_not_held_back() -> None:
    ended = Reauth(cause=ReauthCause.OPERATOR, since=THE_NOW)
    grant = some_grant(state=REAUTH, reauth=ended)

    assert why_not(hold_back(grant, HOLDING)) is Why.STATE


def test_a_refusal_without_a_record_is_not_held_back() -> None:
    assert why_not(hold_back(some_grant(state=REAUTH), HOLDING)) is Why.STATE


@pytest.mark.parametrize("pair", [None, DESTROYED, replace(some_pair(7), refresh_token=None)])
def test_what_cannot_be_presented_is_not_held_back(pair: TokenPair | UnreadablePair | None) -> None:
    grant = replace(refused_grant(), pair=pair)

    assert not grant.can_be_presented()
    assert why_not(hold_back(grant, HOLDING)) is Why.NO_TOKEN


def test_what_was_given_up_before_is_not_held_back() -> None:
    assert why_not(hold_back(given_up_grant(), HOLDING)) is Why.MOVED_ON


def test_what_was_refused_long_before_is_not_held_back() -> None:
    long_before = replace(some_reauth(), since=THE_NOW - GUARD_WINDOW - A_TICK)
    grant = some_grant(state=REAUTH, reauth=long_before)

    assert why_not(hold_back(grant, HOLDING)) is Why.MOVED_ON


def test_a_confirmed_grant_keeps_its_pair_for_a_while() -> None:
    now = THE_NOW + QUARANTINE

    given_up = changed(confirmed(held_grant(), now=now))

    assert given_up == replace(held_grant(), state=REAUTH, quarantined_until=now + KEEP_FOR)


def test_a_confirmation_waits_for_who_may_hold_a_newer_pair() -> None:
    early = confirmed(held_grant(), now=THE_NOW + QUARANTINE - A_TICK)

    assert why_not(early) is Why.TOO_EARLY


def test_a_confirmation_waits_for_a_live_attempt() -> None:
    deadline = THE_NOW + timedelta(minutes=1)
    attempt = some_attempt(deadline=deadline)
    grant = some_grant_under(attempt, state=HELD, reauth=some_reauth())

    assert why_not(confirmed(grant, now=deadline - A_TICK)) is Why.ATTEMPT_LIVE
    assert changed(confirmed(grant, now=deadline)).attempt == attempt


def test_a_confirmation_is_about_the_generation_that_was_read() -> None:
    grant = replace(held_grant(), generation=8)

    assert why_not(confirmed(grant)) is Why.MOVED_ON


@pytest.mark.parametrize("grant", [some_grant(), refused_grant(), some_grant(state=HELD)])
def test_only_what_is_held_for_a_reason_is_confirmed(grant: Grant) -> None:
    assert why_not(confirmed(grant)) is Why.STATE


@pytest.mark.parametrize("grant", [held_grant(), given_up_grant()])
def test_a_discard_makes_a_refused_grant_active(grant: Grant) -> None:
    assert changed(discard(grant, now=THE_NOW)) == some_grant()


def test_a_discard_brings_back_what_is_in_quarantine_to_the_last() -> None:
    grant, end = given_up_grant(), THE_NOW + KEEP_FOR

    assert changed(discard(grant, now=end - A_TICK)).state is GrantState.ACTIVE
    assert why_not(discard(grant, now=end)) is Why.MOVED_ON


def test_a_discard_brings_back_nothing_that_the_guard_did_not_give_up() -> None:
    assert why_not(discard(refused_grant(), now=THE_NOW)) is Why.MOVED_ON
    assert why_not(discard(some_grant(), now=THE_NOW)) is Why.STATE


def test_without_a_pair_there_is_nothing_to_discard() -> None:
    grant = replace(held_grant(), pair=None)

    assert why_not(discard(grant, now=THE_NOW)) is Why.NO_TOKEN


def test_a_pair_that_does_not_open_is_held_no_longer_than_others() -> None:
    grant = replace(held_grant(), pair=DESTROYED)

    assert changed(discard(grant, now=THE_NOW)).pair == DESTROYED


def test_outside_the_guard_a_token_is_destroyed_after_the_window() -> None:
    grant, end = refused_grant(), THE_NOW + GUARD_WINDOW

    gone = changed(destroy_refused(grant, Guard(), now=end))

    assert why_not(destroy_refused(grant, Guard(), now=end - A_TICK)) is Why.TOO_EARLY
    assert gone == replace(grant, pair=None, expires_at=None, renew_at=None)


def test_a_token_in_quarantine_is_destroyed_at_its_end() -> None:
    grant, end = given_up_grant(), THE_NOW + KEEP_FOR

    assert why_not(destroy_refused(grant, Guard(), now=end - A_TICK)) is Why.TOO_EARLY
    assert changed(destroy_refused(grant, Guard(), now=end)).pair is None


def test_what_may_still_be_held_back_is_not_destroyed() -> None:
    now = THE_NOW + timedelta(hours=1)

    assert why_not(destroy_refused(refused_grant(), HOLDING, now=now)) is Why.TOO_EARLY


def test_a_hold_keeps_no_token_whose_quarantine_is_over() -> None:
    now = THE_NOW + KEEP_FOR

    assert changed(destroy_refused(given_up_grant(), HOLDING, now=now)).pair is None


def test_a_token_is_destroyed_once() -> None:
    grant = replace(refused_grant(), pair=None)

    assert why_not(destroy_refused(grant, Guard(), now=THE_NOW + KEEP_FOR)) is Why.ALREADY


@pytest.mark.parametrize("grant", [some_grant(), held_grant(), some_grant(state=REAUTH)])
def test_only_what_pleo_refused_is_destroyed(grant: Grant) -> None:
    assert why_not(destroy_refused(grant, Guard(), now=THE_NOW + KEEP_FOR)) is Why.STATE


@dataclass(slots=True, kw_only=True)
class World:
    """One grant and the guard, whose replicas may have heard of any of its states."""

    grant: Grant
    guard: Guard
    now: datetime = THE_NOW


Act = Callable[[World], Decision | None]


def _holds(world: World) -> None:
    world.guard = hold(world.guard, now=world.now, hold_for=timedelta(hours=4))


def _decides(release: Release) -> Act:
    def act(world: World) -> None:
        world.guard = decide(world.guard, release, now=world.now, by="anna", reason="")

    return act


def _finishes(world: World) -> None:
    world.guard = finish(world.guard)


ACTS: list[Act] = [
    _holds,
    _decides(Release.CONFIRM),
    _decides(Release.DISCARD),
    _finishes,
    lambda world: hold_back(world.grant, world.guard),
    lambda world: confirmed(world.grant, now=world.now),
    lambda world: discard(world.grant, now=world.now),
    lambda world: destroy_refused(world.grant, world.guard, now=world.now),
]

steps = st.lists(
    st.tuples(st.sampled_from(ACTS), st.integers(0, 600).map(lambda n: timedelta(seconds=n))),
    max_size=40,
)


def _kept_until(grant: Grant) -> datetime | None:
    """Returns until when nothing may destroy the pair; None: nothing ever may."""
    if grant.state is not REAUTH or grant.reauth is None:
        return None
    return grant.quarantined_until or grant.reauth.since + GUARD_WINDOW


@given(
    grant=st.sampled_from([some_grant(), held_grant(), refused_grant(), given_up_grant()]),
    state=st.sampled_from(GuardState),
    steps=steps,
)
def test_no_sequence_of_guard_writes_loses_a_pair_too_early(
    grant: Grant, state: GuardState, steps: list[tuple[Act, timedelta]]
) -> None:
    world = World(grant=grant, guard=replace(HOLDING, state=state))
    for act, later in steps:
        world.now += later
        before, decision = world.grant, act(world)
        if not isinstance(decision, Changed):
            continue
        world.grant = decision.after
        kept_until = _kept_until(before)
        is_over = kept_until is not None and world.now >= kept_until
        assert world.grant.pair == before.pair or is_over
        assert world.grant.generation == before.generation
        assert (world.grant.attempt, world.grant.doubt) == (before.attempt, Doubt.NONE)
