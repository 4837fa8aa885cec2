"""GetAccessToken from the callers' side: shared flights, deadlines, patience, memory."""

from __future__ import annotations

import asyncio
import traceback
from datetime import timedelta

import pytest

from broker.domain.errors import (
    BrokerError,
    ProviderUnavailable,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    StoreUnavailable,
    TenantNotFound,
)
from broker.domain.facts import DefectMet, FlightEnded, FlightStarted, Source, TokenServed
from broker.sandbox.faults import Delay, Hang, Hold
from broker.service.messages import ServedToken
from support.service import fleet, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run

A_MOMENT = timedelta(seconds=3)
LONG = timedelta(minutes=5)


@in_virtual_time
async def test_a_thousand_callers_share_one_flight_and_one_presentation() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()

        calls = [one.call() for _ in range(1000)]
        got = await asyncio.gather(*calls)

        assert {served.generation for served in got if isinstance(served, ServedToken)} == {8}
        assert len(one.told.of(FlightStarted)) == 1
        assert [ended.waiters for ended in one.told.of(FlightEnded)] == [1000]
        renewed = TokenServed(source=Source.REFRESH, degraded=False)
        assert one.told.of(TokenServed) == [renewed] * 1000
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_fresh_copy_answers_without_any_question() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        first = await one.get()
        gate = ours.watch()

        again = await one.get()

        assert again.generation == first.generation == 7
        assert gate.calls == []
        assert one.told.of(TokenServed)[-1] == TokenServed(source=Source.MEMORY, degraded=False)


@in_virtual_time
async def test_followers_survive_the_cancellation_of_the_leader() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = ours.replica()
        leader, follower = one.call(), one.call()
        await ours.pleo.sandbox.until(held=1)

        leader.cancel()
        await let_others_run()
        ours.pleo.sandbox.release()

        assert served(await follower).generation == 8
        assert leader.cancelled()
        assert one.told.of(TokenServed) == [TokenServed(source=Source.REFRESH, degraded=False)]
        assert ours.counts().presentations == ours.counts().rotations == 1


@in_virtual_time
async def test_a_refresh_that_all_callers_left_is_followed_to_its_answer() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one = ours.replica()
        calls = [one.call() for _ in range(3)]
        await ours.pleo.sandbox.until(held=1)

        for call in calls:
            call.cancel()
        await let_others_run()
        ours.pleo.sandbox.release()
        await one.landed()

        assert ours.grant().generation == 8
        assert one.memory.fresh("acme") is not None
        assert one.told.of(TokenServed) == []


@in_virtual_time
async def test_a_deadline_that_comes_first_leaves_the_refresh_going_on() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Delay(seconds=5))
        one = ours.replica()

        with pytest.raises(RefreshInProgress):
            await one.get(budget=A_MOMENT)
        asked_to_leave_at = seconds_gone()
        await one.landed()

        assert asked_to_leave_at == pytest.approx(2.7)
        assert (seconds_gone(), ours.grant().generation) == (5, 8)


@in_virtual_time
async def test_the_answer_comes_a_tenth_before_a_short_deadline() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Delay(seconds=5))
        one = ours.replica()

        with pytest.raises(RefreshInProgress):
            await one.get(budget=timedelta(seconds=1))

        assert seconds_gone() == pytest.approx(0.9)


@in_virtual_time
async def test_after_two_seconds_a_living_token_stands_in() -> None:
    async with fleet() as ours:
        ours.connect_due()
        ours.pleo.sandbox.faults.add(Delay(seconds=5))
        one = ours.replica()

        got = await one.get()

        assert (got.generation, got.is_degraded, got.reuse_for) == (7, True, timedelta(0))
        assert seconds_gone() == 2
        degraded = TokenServed(source=Source.FALLBACK, degraded=True)
        assert one.told.of(TokenServed) == [degraded]


@in_virtual_time
async def test_a_renewal_within_two_seconds_is_waited_for() -> None:
    async with fleet() as ours:
        ours.connect_due()
        ours.pleo.sandbox.faults.add(Delay(seconds=1.9))

        got = await ours.replica().get()

        assert (got.generation, got.is_degraded) == (8, False)


@in_virtual_time
async def test_a_short_deadline_shortens_the_patience() -> None:
    async with fleet() as ours:
        ours.connect_due()
        ours.pleo.sandbox.faults.add(Delay(seconds=5))

        got = await ours.replica().get(budget=timedelta(seconds=1))

        assert got.is_degraded
        assert seconds_gone() == pytest.approx(0.9)


@in_virtual_time
async def test_a_caller_waits_no_longer_than_a_whole_request_may_take() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hang())
        one = ours.replica()

        with pytest.raises(RefreshOutcomeUnknown):
            await one.get(budget=LONG)

        assert seconds_gone() == 10
        assert len(one.flights) == 1


@in_virtual_time
async def test_a_living_token_stands_in_while_postgresql_is_away() -> None:
    async with fleet() as ours:
        ours.connect_due()
        ours.pleo.unreachable = "connect_refused"
        one = ours.replica()
        await one.get()
        ours.world.fail_next("read", times=100)

        got = await one.get()

        assert (got.generation, got.is_degraded) == (7, True)


@in_virtual_time
async def test_nothing_stands_in_for_a_token_that_was_reported() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        await one.get()
        ours.world.fail_next("read", times=100)

        with pytest.raises(StoreUnavailable):
            await one.get(rejected=7)


@in_virtual_time
async def test_nothing_stands_in_for_a_grant_that_is_gone() -> None:
    async with fleet() as ours:
        with pytest.raises(TenantNotFound):
            await ours.replica().get("nobody")


@in_virtual_time
async def test_an_error_given_to_many_callers_grows_no_traceback() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.unreachable = "connect_refused"
        one = ours.replica()

        errors = await asyncio.gather(*(one.call() for _ in range(50)))

        assert len({id(error) for error in errors}) == 1
        assert isinstance(errors[0], ProviderUnavailable)
        assert len(traceback.extract_tb(errors[0].__traceback__)) < 10


@in_virtual_time
async def test_a_defect_gives_every_caller_the_id_that_is_told() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.world.on_arrival = _stumble
        one = ours.replica()

        errors = await asyncio.gather(*(one.call() for _ in range(50)))

        (met,) = one.told.of(DefectMet)
        assert {_error(error).metadata["error_id"] for error in errors} == {met.defect_id}
        assert len(traceback.extract_tb(_error(errors[-1]).__traceback__)) < 10
        assert _frames(met.error).count("_stumble") == 1


@in_virtual_time
async def test_a_defect_that_nobody_waits_for_is_told_all_the_same() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        gate = ours.watch("read")
        caller = one.call()
        await gate.reached.wait()
        ours.world.on_departure = _stumble

        caller.cancel()
        await let_others_run()
        gate.open()
        await one.landed()

        assert [_frames(met.error).count("_stumble") for met in one.told.of(DefectMet)] == [1]


@in_virtual_time
async def test_a_living_token_stands_in_for_one_that_a_defect_withholds() -> None:
    async with fleet() as ours:
        ours.connect_due()
        ours.pleo.unreachable = "connect_refused"
        one = ours.replica()
        await one.get()
        ours.world.on_arrival = _stumble

        got = await one.get()

        assert (got.generation, got.is_degraded) == (7, True)
        assert len(one.told.of(DefectMet)) == 1


@in_virtual_time
async def test_what_was_reported_is_another_flight() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        gate = ours.watch("read")

        calls = [one.call(), one.call(rejected=6), one.call(rejected=6), one.call()]
        await gate.reached.wait()

        assert len(one.flights) == 2
        gate.open()
        assert [served(await call).generation for call in calls] == [7, 7, 7, 7]


@pytest.mark.parametrize("tenants", [3])
@in_virtual_time
async def test_tenants_do_not_wait_for_one_another(tenants: int) -> None:
    async with fleet() as ours:
        for number in range(tenants):
            ours.connect_expired(tenant=f"tenant-{number}", subject=None)
        ours.pleo.sandbox.faults.add(Hold())
        one = ours.replica()
        held = one.call("tenant-0")
        await ours.pleo.sandbox.until(held=1)

        others = [await one.get(f"tenant-{number}") for number in range(1, tenants)]

        assert [got.generation for got in others] == [8] * (tenants - 1)
        assert not held.done()
        ours.pleo.sandbox.release()


STAGES = [("read", 0), ("read", 1), ("apply", 0), ("apply", 1)]
"""Each call for the grant in a refresh: first look, look under the lease, claim, settlement."""


@pytest.mark.parametrize(("method", "passing"), STAGES)
@in_virtual_time
async def test_a_caller_that_leaves_at_any_stage_changes_nothing(method: str, passing: int) -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        gate = ours.watch(method, passing=passing)
        leader, follower = one.call(), one.call()
        await gate.reached.wait()

        leader.cancel()
        await let_others_run()
        gate.open()

        assert served(await follower).generation == 8
        assert ours.counts().presentations == 1
        assert gate.calls == ["read", "read", "read fleet", "apply", "apply"]


@in_virtual_time
async def test_a_caller_that_leaves_during_the_announcement_changes_nothing() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        calls = [one.call()]
        ours.redis.deliveries = lambda _: [] if calls[0].cancel() else [0.0]

        await asyncio.wait(calls)
        await one.landed()

        assert calls[0].cancelled()
        assert one.memory.fresh("acme") is not None


def served(got: ServedToken | Exception) -> ServedToken:
    """Returns the token; fails where there is an error."""
    assert isinstance(got, ServedToken), got
    return got


def _error(got: ServedToken | Exception) -> BrokerError:
    assert isinstance(got, BrokerError)
    return got


def _frames(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


async def _stumble(_: object) -> None:
    raise ZeroDivisionError
