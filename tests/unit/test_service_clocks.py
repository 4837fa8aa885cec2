"""PostgreSQL's clock jumps: one presenter all the same (law 1), and nobody waits for an hour."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.domain.errors import RefreshInProgress, RefreshOutcomeUnknown
from broker.domain.grant import AttemptPhase, FailureKind, FailureRecord
from broker.domain.times import LONGEST_SPAN
from broker.sandbox.faults import Delay, Hold
from broker.service.messages import ServedToken
from support.consent_service import crash
from support.grants import THE_NOW, some_attempt, some_grant
from support.service import TIMES, Fleet, Replica, fleet, seconds_gone, virtual_now
from support.virtual_time import in_virtual_time, let_others_run, pass_time, run_virtual

AN_HOUR = timedelta(hours=1)
HOURS = st.timedeltas(timedelta(0), 2 * AN_HOUR)
MOMENTS = st.floats(0, 27)
"""Seconds after the refresh began, its owner still listening."""


def jump(ours: Fleet, by: timedelta, *, at: float) -> None:
    """Lets PostgreSQL's clock jump at a moment of the story."""

    def now() -> datetime:
        return virtual_now() + (by if seconds_gone() >= at else timedelta(0))

    ours.world.now = now


async def asked_until_served(one: Replica) -> list[object]:
    """Asks again and again; returns the reasons that were given, and the generation."""
    told: list[object] = []
    while not isinstance(got := await one.call(budget=AN_HOUR), ServedToken):
        told.append(type(got))
        await pass_time(1)
    return [*told, got.generation]


def connect_long_expired(ours: Fleet) -> None:
    """Connects a grant whose token no jump brings back to life."""
    long_ago = THE_NOW - 3 * AN_HOUR
    ours.put(replace(ours.connect_expired(), renew_at=long_ago, expires_at=long_ago))


async def has_another_presenter(by: timedelta, *, at: float, answered_after: float) -> bool:
    """Whether a second replica presents what the first, which is well, has on the wire or spent."""
    async with fleet() as ours:
        connect_long_expired(ours)
        jump(ours, by, at=at)
        ours.pleo.sandbox.faults.add(Delay(seconds=answered_after))
        one, two = ours.replica("one"), ours.replica("two")
        first = one.call()
        await let_others_run()

        await asked_until_served(two)
        await first

        overlaps = [each.overlaps for each in ours.pleo.sandbox.record.presentations]
        return any(overlaps) or ours.counts().presentations_of_superseded > 0


@settings(deadline=None, max_examples=50)
@given(by=HOURS, at=MOMENTS, answered_after=MOMENTS)
def test_a_clock_set_back_makes_no_second_presenter(
    by: timedelta, at: float, answered_after: float
) -> None:
    assert not run_virtual(has_another_presenter(-by, at=at, answered_after=answered_after))


@settings(deadline=None, max_examples=50)
@given(by=HOURS, at=MOMENTS, answered_after=MOMENTS)
@example(by=timedelta(seconds=30), at=1.0, answered_after=27.0)
def test_a_clock_put_forward_over_an_attempt_that_was_seen_ends_it_for_nobody(
    by: timedelta, at: float, answered_after: float
) -> None:
    assert not run_virtual(has_another_presenter(by, at=at, answered_after=answered_after))


async def fallen_silent(by: timedelta) -> tuple[float, list[object]]:
    """Returns when a token is served although its first presenter died, and what was said."""
    async with fleet() as ours:
        connect_long_expired(ours)
        ours.pleo.sandbox.faults.add(Hold(when="before"))
        died = ours.replica("one").call()
        await ours.pleo.sandbox.until(held=1)
        crash()
        await died
        jump(ours, by, at=0)

        told = await asked_until_served(ours.replica("two"))

        return seconds_gone(), told


@settings(deadline=None, max_examples=50)
@given(by=HOURS)
def test_a_clock_set_back_holds_up_nobody_for_as_long(by: timedelta) -> None:
    served_at, told = run_virtual(fallen_silent(-by))

    # The longest span of any replica's attempt, a quarantine, and the pauses of who asks.
    assert TIMES.span.total_seconds() <= served_at
    assert served_at <= (LONGEST_SPAN + TIMES.quarantine).total_seconds() + 5
    assert set(told) <= {RefreshInProgress, 8}


@in_virtual_time
async def test_an_unknown_outcome_from_before_the_jump_is_told_with_a_span_at_most() -> None:
    async with fleet() as ours:
        later = THE_NOW + AN_HOUR
        failures = FailureRecord(kind=FailureKind.OUTCOME_UNKNOWN, count=1, next_try_at=later)
        unknown = some_attempt(attempt_id="theirs", phase=AttemptPhase.UNKNOWN, deadline=later)
        ours.connect_expired(attempt=unknown, failures=failures)
        one = ours.replica()

        first = await one.call()
        await pass_time(60)
        second = await one.call()
        await pass_time(20)
        third = await one.call()

        assert isinstance(first, RefreshOutcomeUnknown)
        assert isinstance(second, RefreshOutcomeUnknown)
        assert [first.retry_after, second.retry_after] == [LONGEST_SPAN, timedelta(seconds=20)]
        assert isinstance(third, ServedToken)


@in_virtual_time
async def test_an_attempt_is_watched_from_its_own_beginning() -> None:
    async with fleet() as ours:
        theirs = some_attempt(attempt_id="theirs", deadline=THE_NOW + AN_HOUR)
        ours.connect_expired(attempt=theirs)
        rows = ours.replica().rows
        await rows.read("acme")
        await pass_time(79)
        ours.put(replace(ours.grant(), attempt=replace(theirs, number=14)))

        await rows.read("acme")
        await pass_time(79)
        attempt = (await rows.read("acme")).grant.attempt

        assert attempt is not None
        assert attempt.deadline == virtual_now() + timedelta(seconds=1)


@pytest.mark.parametrize("phase", AttemptPhase)
@in_virtual_time
async def test_a_clock_that_is_right_again_is_believed_again(phase: AttemptPhase) -> None:
    async with fleet() as ours:
        deadline = THE_NOW + timedelta(seconds=30)
        ours.put(some_grant(attempt=some_attempt(phase=phase, deadline=deadline)))
        rows = ours.replica().rows
        jump(ours, -AN_HOUR, at=0)
        await rows.read("acme")
        jump(ours, timedelta(0), at=0)

        attempt = (await rows.read("acme")).grant.attempt

        assert attempt is not None
        assert attempt.deadline == deadline
        await asyncio.sleep(0)
