"""Claiming and arming: intent before wire, one presenter, quarantine after abandoned attempts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.errors import KeyUnavailable, RefreshInProgress, StoreUnavailable
from broker.domain.facts import AttemptClaimed, AttemptSending, Fact
from broker.domain.grant import (
    Attempt,
    AttemptPhase,
    Doubt,
    FailureKind,
    FailureRecord,
    GrantState,
)
from broker.domain.history import AttemptOutcome
from broker.service.arming import WATCH_PAUSE
from broker.service.rows import Reading
from broker.service.settle import Claimed
from support.fake_world import Call
from support.grants import THE_NOW, some_attempt, some_pair
from support.service import TIMES, Fleet, Replica, fleet, seconds_gone
from support.virtual_time import in_virtual_time, pass_time

OVER = some_attempt(number=12, attempt_id="theirs", deadline=THE_NOW, replica="dead")
"""An attempt whose owner never settled it."""


async def claim(one: Replica) -> Claimed | Reading:
    return await one.claims.claim_refresh(await one.rows.read("acme"))


async def claimed(one: Replica) -> Claimed:
    outcome = await claim(one)
    assert isinstance(outcome, Claimed)
    return outcome


def outcomes(ours: Fleet) -> list[AttemptOutcome]:
    return [record.outcome for record in ours.world.attempts]


def attempt_of(ours: Fleet) -> Attempt:
    attempt = ours.grant().attempt
    assert attempt is not None
    return attempt


@in_virtual_time
async def test_a_claim_is_committed_with_its_deadline_and_owner() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()

        mine = await claimed(one)

        assert attempt_of(ours) == mine.attempt
        assert (mine.attempt.number, mine.attempt.replica) == (13, "one")
        assert mine.attempt.phase is AttemptPhase.ARMED
        assert mine.attempt.deadline == THE_NOW + TIMES.span
        assert [told.number for told in one.told.of(AttemptClaimed)] == [13]


@in_virtual_time
async def test_own_time_counts_from_before_the_row_was_read() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.on_arrival = _takes_two_seconds
        one = ours.replica()

        mine = await claimed(one)

        assert (mine.started_at, seconds_gone()) == (0, 4)
        assert mine.attempt.deadline == THE_NOW + timedelta(seconds=2) + TIMES.span


@in_virtual_time
async def test_a_lost_acknowledgement_is_tried_again_under_the_same_id() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.fail_next("apply", when="departure", times=2)
        one = ours.replica()

        mine = await claimed(one)

        assert mine.attempt == attempt_of(ours)
        assert (mine.attempt.attempt_id, mine.attempt.number) == ("one-1", 15)
        assert mine.attempt.phase is AttemptPhase.ARMED
        assert ours.grant().doubt is Doubt.NONE
        assert outcomes(ours) == []


@in_virtual_time
async def test_a_claim_is_given_up_after_three_tries() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.fail_next("apply", times=3)

        with pytest.raises(StoreUnavailable):
            await claim(ours.replica())

        assert ours.grant().attempt is None


@in_virtual_time
async def test_a_read_that_fails_between_tries_is_a_try() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        reading = await one.rows.read("acme")
        ours.world.fail_next("apply", when="departure")
        ours.world.fail_next("read")

        mine = await one.claims.claim_refresh(reading)

        assert isinstance(mine, Claimed)
        assert mine.attempt.attempt_id == "one-1"


@in_virtual_time
async def test_nothing_is_sent_while_the_claim_cannot_be_committed() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.fail_next("apply", times=3)

        with pytest.raises(StoreUnavailable):
            await ours.replica().get()

        assert ours.counts().presentations == 0


@in_virtual_time
async def test_nothing_is_sent_where_a_pair_could_not_be_sealed() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.seals = False

        with pytest.raises(KeyUnavailable):
            await ours.replica().get()

        assert ours.counts().presentations == 0


@in_virtual_time
async def test_the_attempt_is_committed_before_the_first_byte() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        phases: list[AttemptPhase] = []

        def look(fact: Fact) -> None:
            if isinstance(fact, AttemptSending):
                phases.append(attempt_of(ours).phase)

        one.told.listener = look
        await one.get()

        assert phases == [AttemptPhase.ARMED]


@in_virtual_time
async def test_a_live_attempt_of_another_is_let_be() -> None:
    async with fleet() as ours:
        theirs = some_attempt(number=12, attempt_id="theirs", deadline=THE_NOW + TIMES.span)
        ours.connect_expired(attempt=theirs)

        outcome = await claim(ours.replica())

        assert isinstance(outcome, Reading)
        assert attempt_of(ours) == theirs


@in_virtual_time
async def test_of_two_who_claim_at_once_one_wins() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one, two = ours.replica("one"), ours.replica("two")
        readings = [await one.rows.read("acme"), await two.rows.read("acme")]

        won = await one.claims.claim_refresh(readings[0])
        lost = await two.claims.claim_refresh(readings[1])

        assert isinstance(won, Claimed)
        assert isinstance(lost, Reading)
        assert lost.grant.attempt == won.attempt


@in_virtual_time
async def test_who_was_overtaken_by_a_failure_does_not_skip_its_backoff() -> None:
    async with fleet() as ours:
        grant = ours.connect_expired()
        one = ours.replica()
        reading = await one.rows.read("acme")
        failed = FailureRecord(
            kind=FailureKind.PROVIDER_UNAVAILABLE,
            code="http_429",
            count=1,
            next_try_at=THE_NOW + timedelta(minutes=1),
        )
        ours.put(replace(grant, failures=failed))

        outcome = await one.claims.claim_refresh(reading)

        assert isinstance(outcome, Reading)
        assert outcome.grant.failures == failed
        assert ours.grant().attempt is None


@in_virtual_time
async def test_an_abandoned_attempt_is_noted_by_whoever_claims_next() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)

        mine = await claimed(ours.replica())

        assert mine.attempt.phase is AttemptPhase.CLAIMED
        assert ours.grant().doubt is Doubt.ABANDONED
        assert [(line.outcome, line.attempt) for line in ours.world.attempts] == [
            (AttemptOutcome.ABANDONED, OVER)
        ]


@in_virtual_time
async def test_a_disclaimed_attempt_is_presented_again_without_quarantine() -> None:
    async with fleet() as ours:
        unknown = replace(OVER, phase=AttemptPhase.UNKNOWN)
        ours.connect_expired(attempt=unknown, doubt=Doubt.DISCLAIMED)
        one = ours.replica()

        mine = await claimed(one)

        assert mine.attempt.phase is AttemptPhase.ARMED
        assert await one.arming.armed(mine) is mine
        assert (seconds_gone(), outcomes(ours)) == (0, [])


@in_virtual_time
async def test_after_an_abandoned_attempt_nothing_is_sent_for_the_quarantine() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()
        call = one.call()
        await pass_time(19.9)
        assert ours.counts().presentations == 0

        await call

        assert seconds_gone() == 20
        assert ours.counts().presentations == 1
        assert (ours.grant().generation, ours.grant().doubt) == (8, Doubt.NONE)


@in_virtual_time
async def test_the_quarantine_is_kept_when_postgresqls_clock_jumps() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()
        mine = await claimed(one)
        ours.world.now = lambda: mine.attempt.deadline - timedelta(seconds=1)

        armed = await one.arming.armed(mine)

        assert isinstance(armed, Claimed)
        assert seconds_gone() == 20


@in_virtual_time
async def test_arming_gives_a_new_deadline_and_own_time() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()

        armed = await one.arming.armed(await claimed(one))

        assert isinstance(armed, Claimed)
        assert armed.attempt == attempt_of(ours)
        assert armed.attempt.phase is AttemptPhase.ARMED
        assert armed.started_at == 20
        assert armed.attempt.deadline == THE_NOW + timedelta(seconds=20) + TIMES.span


@in_virtual_time
async def test_a_pair_stored_during_the_quarantine_ends_it() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()
        mine = await claimed(one)
        waiting = ours.tasks.create_task(one.arming.armed(mine), name="quarantine")
        await pass_time(4.5)
        stored = replace(ours.grant(), generation=8, pair=some_pair(8))
        ours.put(stored)

        outcome = await waiting

        assert isinstance(outcome, Reading)
        assert (outcome.grant.generation, ours.grant().attempt) == (8, None)
        assert seconds_gone() == 5
        assert outcomes(ours) == [AttemptOutcome.ABANDONED, AttemptOutcome.LET_GO]


@in_virtual_time
async def test_an_attempt_lost_during_the_quarantine_is_not_touched() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()
        mine = await claimed(one)
        theirs = some_attempt(number=14, attempt_id="theirs")
        ours.put(replace(ours.grant(), attempt=theirs))

        outcome = await one.arming.armed(mine)

        assert isinstance(outcome, Reading)
        assert attempt_of(ours) == theirs
        assert outcomes(ours) == [AttemptOutcome.ABANDONED]


@in_virtual_time
async def test_a_grant_that_ended_during_the_quarantine_is_not_presented() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()
        mine = await claimed(one)
        ours.put(replace(ours.grant(), state=GrantState.REVOKED, generation=8, pair=None))

        outcome = await one.arming.armed(mine)

        assert isinstance(outcome, Reading)
        assert ours.grant().attempt is None


@in_virtual_time
async def test_a_quarantine_without_postgresql_does_not_count() -> None:
    """A living holder could not have stored its pair meanwhile."""
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()
        mine = await claimed(one)
        ours.world.fail_next("read", times=3)

        armed = await one.arming.armed(mine)

        assert isinstance(armed, Claimed)
        assert seconds_gone() == 23


@in_virtual_time
async def test_a_quarantine_that_an_outage_drew_out_is_begun_again() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()
        mine = await claimed(one)
        ours.world.fail_next("read", times=15)

        outcome = await one.arming.armed(mine)

        assert isinstance(outcome, Reading)
        assert (ours.grant().attempt, ours.grant().doubt) == (None, Doubt.ABANDONED)
        assert ours.counts().presentations == 0


@pytest.mark.parametrize("when", ["arrival", "departure"])
@in_virtual_time
async def test_arming_that_is_not_acknowledged_sends_nothing(when: str) -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()
        mine = await claimed(one)
        looks = int(TIMES.quarantine / timedelta(seconds=WATCH_PAUSE))
        writes = 0

        async def fail_the_arming(call: Call) -> None:
            nonlocal writes
            writes += call.method == "apply"
            if writes == looks + 1 and call.method == "apply":
                raise StoreUnavailable("the test lets the arming fail")

        if when == "arrival":
            ours.world.on_arrival = fail_the_arming
        else:
            ours.world.on_departure = fail_the_arming
        with pytest.raises(StoreUnavailable):
            await one.arming.armed(mine)

        assert ours.counts().presentations == 0


@in_virtual_time
async def test_a_broker_that_stops_claims_nothing() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        one.claims.stop()

        error = await one.call()

        assert isinstance(error, RefreshInProgress)
        assert (ours.grant().attempt, ours.counts().presentations) == (None, 0)


@in_virtual_time
async def test_a_broker_that_stops_during_the_quarantine_lets_go() -> None:
    async with fleet() as ours:
        ours.connect_expired(attempt=OVER)
        one = ours.replica()
        call = one.call()
        await pass_time(5)

        one.claims.stop()

        assert isinstance(await call, RefreshInProgress)
        assert (ours.grant().attempt, ours.grant().doubt) == (None, Doubt.ABANDONED)
        assert ours.counts().presentations == 0


@in_virtual_time
async def test_what_is_presented_is_the_pair_that_the_claim_returned() -> None:
    async with fleet() as ours:
        grant = ours.connect_expired()
        one = ours.replica()
        stale = await one.rows.read("acme")
        ours.put(replace(grant, lifetime=timedelta(minutes=10)))

        mine = await one.claims.claim_refresh(stale)

        assert isinstance(mine, Claimed)
        assert mine.reading.grant.lifetime == timedelta(minutes=10)


async def _takes_two_seconds(_: Call) -> None:
    await asyncio.sleep(2)
