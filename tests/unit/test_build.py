"""The service as a whole: what runs beside the calls, what counts as use, and how it stops."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.errors import RefreshInProgress, StoreUnavailable, TenantNotFound
from broker.domain.escrow import Escrow
from broker.domain.facts import LoopFailed
from broker.domain.grant import Grant
from broker.sandbox.faults import Hold
from broker.service.running import LANDING_SECONDS
from support.consent_service import Desk, crash, desk, looping
from support.fake_world import Call, Hook
from support.grants import some_attempt, some_grant, some_issue
from support.service import Fleet, fleet, seconds_gone, virtual_now
from support.virtual_time import in_virtual_time, let_others_run, pass_time


@in_virtual_time
async def test_a_served_token_counts_as_use_and_a_refused_call_does_not() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)

        await one.generation()
        with pytest.raises(TenantNotFound):
            await one.generation("nobody")

        assert len(one.service.usage) == 1


@in_virtual_time
async def test_the_loops_have_names_and_each_does_its_part() -> None:
    async with fleet() as ours:
        ours.connect()
        one, two = desk(ours), desk(ours, "two")
        await one.generation()
        async with looping(one, "usage", "changes"):
            assert ours.grant().last_used_at is not None
            await two.revoke()
            await pass_time(2)

            assert one.service.memory.fresh("acme") is None

        assert sorted(one.service.loops()) == [
            "announcements",
            "beats",
            "canary",
            "changes",
            "disclosures",
            "escrows",
            "fleet",
            "guard",
            "recall",
            "renewals",
            "tidying",
            "usage",
            "watches",
        ]


@in_virtual_time
async def test_an_announcement_is_taken_at_once() -> None:
    async with fleet() as ours:
        ours.connect()
        one, two = desk(ours), desk(ours, "two")
        async with looping(one, "announcements"):
            await one.generation()
            await two.revoke()
            await let_others_run()

            assert one.service.memory.fresh("acme") is None


@in_virtual_time
async def test_a_loop_goes_on_after_failures() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)
        ours.world.fail_next("note_used", times=3)
        await one.generation()
        async with looping(one, "usage"):
            await pass_time(50)

        failures = [LoopFailed(loop="usage", error="STORE_UNAVAILABLE")] * 3
        assert one.told.of(LoopFailed) == failures
        assert ours.grant().last_used_at is not None


def always_under_way(ours: Fleet) -> Hook:
    """Returns a hook that sees to it that an attempt of somebody else is always live."""

    async def renew(_: Call) -> None:
        deadline = virtual_now() + timedelta(seconds=20)
        theirs = some_attempt(attempt_id="theirs", deadline=deadline)
        ours.put(replace(ours.grant(), attempt=theirs))

    return renew


@pytest.mark.parametrize(("http_timeout", "waited"), [(1, 60), (10, 60), (60, 160)])
@in_virtual_time
async def test_an_attempt_of_others_is_waited_for_as_long_as_one_may_take(
    http_timeout: int, waited: int
) -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.on_arrival = always_under_way(ours)
        one = desk(ours, http_timeout=timedelta(seconds=http_timeout))
        call = one.call(one.generation())
        await let_others_run()

        await one.service.token_flights.settled()

        assert seconds_gone() == waited
        assert isinstance(await call, RefreshInProgress)


@in_virtual_time
async def test_stopping_waits_for_what_is_on_the_wire() -> None:
    async with fleet() as ours:
        one, call = await _exchanging(ours)
        stopping = ours.tasks.create_task(one.service.settled(patience=1), name="stopping")
        await pass_time(20)
        assert not stopping.done()

        ours.pleo.sandbox.release()
        await stopping

        assert ours.grant().generation == 1
        assert isinstance(await call, Grant)


async def _exchanging(ours: Fleet) -> tuple[Desk, asyncio.Task[Grant | Exception]]:
    ours.pleo.sandbox.faults.add(Hold(when="after"))
    one = desk(ours)
    call = one.call(one.complete(await one.consented()))
    await ours.pleo.sandbox.until(held=1)
    return one, call


@in_virtual_time
async def test_stopping_waits_for_postgresql_to_take_a_refreshed_pair() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = desk(ours)
        call = one.call(one.generation())
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", times=10)
        ours.redis.is_reachable = False
        ours.pleo.sandbox.release()

        await one.service.settled(patience=1)

        assert (ours.grant().generation, await call) == (8, 8)
        assert seconds_gone() == pytest.approx(13.1)


@in_virtual_time
async def test_stopping_does_not_wait_for_what_lies_in_escrow() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        call = one.call(one.generation())
        await ours.pleo.sandbox.until(held=1)
        ours.world.fail_next("apply", times=10)
        ours.pleo.sandbox.release()

        await one.service.settled(patience=1)

        assert (ours.grant().generation, await call) == (7, 8)
        ours.world.fail_next("apply", times=0)
        await two.service.adoption.sweep()
        assert (ours.grant().generation, await two.generation()) == (8, 8)
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_stopping_waits_for_an_escrow_that_was_read_and_that_redis_forgot() -> None:
    async with fleet() as ours:
        ours.put(some_grant())
        escrow = Escrow(tenant="acme", attempt=some_attempt(), issued=some_issue())
        ours.redis.escrows["acme", escrow.attempt.number] = escrow
        one = desk(ours)
        ours.world.fail_next("apply", times=100)
        with pytest.raises(StoreUnavailable):
            await one.service.adoption.sweep()
        ours.redis.flush()
        ours.redis.is_reachable = False

        stopping = ours.tasks.create_task(one.service.settled(patience=1), name="stopping")
        await pass_time(60)
        assert not stopping.done()
        ours.redis.is_reachable = True
        await stopping

        assert list(ours.redis.escrows.values()) == [escrow]


@in_virtual_time
async def test_stopping_has_little_patience_with_who_only_waits() -> None:
    async with fleet() as ours:
        first, _ = await _exchanging(ours)
        two = desk(ours, "two")
        waiting = two.call(two.complete(await two.consented()))
        await pass_time(1)

        await two.service.settled(patience=5)

        assert isinstance(await waiting, RefreshInProgress)
        assert seconds_gone() == pytest.approx(1.25, abs=0.3)
        ours.pleo.sandbox.release()
        await first.service.grant_flights.settled()


@in_virtual_time
async def test_stopping_does_not_wait_long_for_a_quarantine() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="before"))
        one, two = desk(ours), desk(ours, "two")
        died = one.call(one.generation())
        await ours.pleo.sandbox.until(held=1)
        crash()
        assert isinstance(await died, RefreshInProgress)
        call = two.call(two.generation())
        await pass_time(40)

        await two.service.settled(patience=5)

        assert seconds_gone() == pytest.approx(45 + LANDING_SECONDS)
        assert ours.counts().presentations == 1
        await call


@in_virtual_time
async def test_after_stopping_nothing_is_claimed() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = desk(ours)
        came = await one.consented()
        await one.service.settled(patience=1)

        for work in (one.generation(), one.complete(came)):
            assert isinstance(await one.call(work), RefreshInProgress)

        assert ours.counts().presentations == ours.counts().exchanges == 0
