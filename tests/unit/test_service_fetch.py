"""A flight's way to a fresh row: leases that decide nothing, other replicas that are waited for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.errors import RecordUnreadable, RefreshInProgress
from broker.domain.facts import (
    AttemptClaimed,
    LeaseAnswered,
    LeaseOutcome,
    MemoryDropped,
    Source,
    TokenServed,
)
from broker.domain.grant import Grant, TokenPair
from broker.lease.times import LeaseTimes
from broker.ports import GrantMoved
from broker.sandbox.faults import Delay, Hold
from broker.service.messages import ServedToken
from support.fake_world import Call
from support.grants import THE_NOW, some_attempt, some_grant
from support.service import Fleet, fleet, running, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time

FOR_EVER = LeaseTimes(ttl=timedelta(days=1), life=timedelta(days=1))
LONG = timedelta(minutes=5)


def generations(got: list[ServedToken | Exception]) -> set[int]:
    return {served.generation for served in got if isinstance(served, ServedToken)}


def some_live_attempt(ours: Fleet, *, seconds: float) -> None:
    """Somebody else's attempt is under way for so long."""
    deadline = THE_NOW + timedelta(seconds=seconds)
    ours.connect_expired(attempt=some_attempt(number=12, attempt_id="theirs", deadline=deadline))


def refreshed(grant: Grant) -> Grant:
    """Returns the grant after another replica's success."""
    fresh = some_grant()
    return replace(
        grant, generation=8, attempt=None, renew_at=fresh.renew_at, expires_at=fresh.expires_at
    )


@in_virtual_time
async def test_a_fresh_row_needs_neither_lease_nor_claim() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        gate = ours.watch()

        await one.get()

        assert gate.calls == ["read"]
        assert one.told.of(LeaseAnswered) == []
        assert one.told.of(TokenServed) == [TokenServed(source=Source.DATABASE, degraded=False)]


@in_virtual_time
async def test_three_replicas_with_a_thousand_callers_present_once() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Delay(seconds=1))
        replicas = [ours.replica(name) for name in ("one", "two", "three")]

        got = await asyncio.gather(*(each.call() for each in replicas for _ in range(333)))

        assert generations(got) == {8}
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_without_redis_three_replicas_present_once() -> None:
    async with fleet() as ours:
        ours.redis.is_reachable = False
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Delay(seconds=1))
        replicas = [ours.replica(name) for name in ("one", "two", "three")]

        got = await asyncio.gather(*(each.call() for each in replicas))

        assert generations(got) == {8}
        assert ours.counts().presentations == 1
        assert [answer.outcome for answer in replicas[0].told.of(LeaseAnswered)] == [
            LeaseOutcome.UNREACHABLE
        ]


@in_virtual_time
async def test_a_redis_that_gives_everybody_the_lease_changes_nothing() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold())
        one, two = ours.replica("one"), ours.replica("two")
        first = one.call()
        await ours.pleo.sandbox.until(held=1)
        ours.redis.flush()
        second = two.call()
        await pass_time(1)
        assert two.told.of(AttemptClaimed) == []

        ours.pleo.sandbox.release()

        assert generations([await first, await second]) == {8}
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_lease_that_a_dead_replica_left_is_waited_for_a_second_only() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.redis.take("acme", "a dead replica", FOR_EVER)
        one = ours.replica()

        got = await one.get()

        assert (got.generation, seconds_gone()) == (8, 1)
        assert [answer.outcome for answer in one.told.of(LeaseAnswered)] == [LeaseOutcome.HELD] * 5


@in_virtual_time
async def test_a_grant_that_cannot_be_refreshed_is_told_as_our_fault_at_once() -> None:
    async with fleet() as ours:
        grant = ours.connect_expired()
        assert isinstance(grant.pair, TokenPair)
        ours.put(replace(grant, pair=replace(grant.pair, refresh_token=None)))

        with pytest.raises(RecordUnreadable):
            await ours.replica().get()

        assert (seconds_gone(), ours.counts().presentations) == (0, 0)


@in_virtual_time
async def test_behind_a_lease_that_is_held_the_claim_decides() -> None:
    async with fleet() as ours:
        ours.redis.take("acme", "a dead replica", FOR_EVER)
        ours.connect_expired()
        replicas = [ours.replica(name) for name in ("one", "two")]

        got = await asyncio.gather(*(each.call() for each in replicas))

        assert generations(got) == {8}
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_what_the_last_holder_refreshed_is_not_refreshed_again() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        gate = ours.watch("read", passing=1)
        call = one.call()
        await gate.reached.wait()
        ours.put(refreshed(ours.grant()))

        gate.open()

        assert generations([await call]) == {8}
        assert one.told.of(AttemptClaimed) == []
        assert one.told.of(TokenServed) == [TokenServed(source=Source.DATABASE, degraded=False)]


@in_virtual_time
async def test_an_announcement_ends_the_wait_for_another_replica() -> None:
    async with fleet() as ours:
        some_live_attempt(ours, seconds=30)
        one = ours.replica()
        async with running(one.news.listen()):
            call = one.call()
            await pass_time(0.6)
            ours.put(refreshed(ours.grant()))
            ours.redis.publish(GrantMoved(tenant="acme", generation=8))

            assert generations([await call]) == {8}
        assert seconds_gone() == pytest.approx(0.6)


@in_virtual_time
async def test_without_news_the_row_is_read_every_quarter_of_a_second() -> None:
    async with fleet() as ours:
        some_live_attempt(ours, seconds=30)
        one = ours.replica()
        call = one.call()
        await pass_time(3.1)
        ours.put(refreshed(ours.grant()))

        assert generations([await call]) == {8}
        assert seconds_gone() == 3.25


@in_virtual_time
async def test_a_flight_gives_up_after_a_minute_of_others() -> None:
    async with fleet() as ours:
        some_live_attempt(ours, seconds=600)

        error = await ours.replica().call(budget=LONG)

        assert isinstance(error, RefreshInProgress)
        assert seconds_gone() == 60


@in_virtual_time
async def test_a_flight_that_comes_too_late_begins_no_refresh() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.on_arrival = _takes_a_minute

        error = await ours.replica().call(budget=LONG)

        assert isinstance(error, RefreshInProgress)
        assert ours.counts().presentations == 0


@in_virtual_time
async def test_a_fresh_row_is_served_however_late_it_comes() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.world.on_arrival = _takes_a_minute

        got = await ours.replica().get(budget=LONG)

        assert (got.generation, got.is_degraded) == (7, False)


@in_virtual_time
async def test_every_replica_learns_of_a_rotation_from_the_one_that_made_it() -> None:
    async with fleet() as ours:
        ours.connect()
        one, two = ours.replica("one"), ours.replica("two")
        async with running(two.news.listen()):
            await pass_time(1)
            await two.get()
            await pass_time(8 * 60)
            await one.get()
            await let_others_run()

            assert two.told.of(MemoryDropped)[-1] == MemoryDropped(tenant="acme", cause="moved")
            assert (await two.get()).generation == 8
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_what_moved_nothing_is_not_announced() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.unreachable = "connect_refused"
        one, two = ours.replica("one"), ours.replica("two")
        async with running(two.news.listen()):
            await pass_time(1)
            await one.call()
            await let_others_run()

        assert [told.cause for told in two.told.of(MemoryDropped)] == ["resubscribed"]


async def _takes_a_minute(_: Call) -> None:
    await asyncio.sleep(60)
