"""Planned work: in time, in turn behind callers, at the fleet's rate, and each grant once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta

from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.facts import (
    AttemptClaimed,
    FlightStarted,
    LeaseAnswered,
    LoopFailed,
    RenewalEnded,
)
from broker.domain.guard import Guard, hold
from broker.domain.renewal import Planned
from broker.domain.share import NEWCOMERS
from broker.ports import Due
from broker.sandbox.faults import Hold
from broker.service.renewing import Renewing
from broker.service.turnstile import Turnstile
from support.consent_service import KEEPALIVE, Desk, desk, looping
from support.fake_world import Call
from support.grants import THE_NOW, some_attempt, some_grant
from support.service import Fleet, Gate, Recorder, fleet, running, seconds_gone, virtual_now
from support.virtual_time import in_virtual_time, pass_time

AN_HOUR = timedelta(hours=1)
DUE_IN = 60.0


def connect_used(ours: Fleet, *tenants: str, due_in: float = DUE_IN) -> None:
    """Connects tenants whose tokens are in use, and due in so many seconds."""
    due_at = virtual_now() + timedelta(seconds=due_in)
    for tenant in tenants or ("acme",):
        grant = ours.connect(
            tenant=tenant,
            subject=None,
            renew_at=due_at,
            expires_at=due_at + timedelta(seconds=60),
            refreshed_at=virtual_now() - AN_HOUR,
        )
        ours.put(replace(grant, last_used_at=virtual_now()))


@asynccontextmanager
async def places_taken(one: Desk, count: int) -> AsyncIterator[None]:
    """Keeps so many places at the turnstile, of fifty."""
    async with AsyncExitStack() as places:
        for _ in range(count):
            await places.enter_async_context(one.service.turnstile.turn())
        yield


def rotated(ours: Fleet) -> list[str]:
    """Returns the tenants whose generation is a new one."""
    return [tenant for tenant, row in ours.world.rows.items() if row.grant.generation == 8]


@in_virtual_time
async def test_what_is_in_use_is_rotated_when_its_time_comes() -> None:
    async with fleet() as ours:
        connect_used(ours)
        async with looping(desk(ours), "renewals"):
            await pass_time(DUE_IN - 1)
            assert ours.counts().presentations == 0

            await pass_time(3)

            assert (rotated(ours), ours.counts().presentations) == (["acme"], 1)


@in_virtual_time
async def test_what_is_rotated_and_not_asked_for_again_is_left_to_expire() -> None:
    async with fleet() as ours:
        connect_used(ours)
        async with looping(desk(ours), "renewals"):
            await pass_time(4 * 3600)

            assert ours.counts().presentations == 1


@in_virtual_time
async def test_who_goes_on_asking_never_waits_for_a_rotation() -> None:
    async with fleet() as ours:
        connect_used(ours)
        one = desk(ours)
        async with looping(one, "renewals", "usage", "changes"):
            for _ in range(40):
                await pass_time(60)
                began = seconds_gone()
                await one.generation()
                assert seconds_gone() == began

            assert ours.counts().presentations > 1


@in_virtual_time
async def test_an_idle_grant_is_rotated_before_its_token_dies_of_age() -> None:
    async with fleet() as ours:
        ours.connect_expired(refreshed_at=THE_NOW - KEEPALIVE + timedelta(seconds=DUE_IN))
        async with looping(desk(ours), "renewals"):
            await pass_time(DUE_IN - 1)
            assert ours.counts().presentations == 0

            await pass_time(3)

            assert ours.counts().presentations == 1


@in_virtual_time
async def test_two_replicas_renew_each_grant_once() -> None:
    async with fleet() as ours:
        tenants = [f"tenant-{number}" for number in range(30)]
        connect_used(ours, *tenants, due_in=0)
        one, two = desk(ours, "one"), desk(ours, "two")
        async with looping(one, "renewals"), looping(two, "renewals"):
            await pass_time(5)

        ended = [*one.told.of(RenewalEnded), *two.told.of(RenewalEnded)]
        assert sorted(each.tenant for each in ended) == sorted(tenants)
        assert ours.counts().presentations == 30


@in_virtual_time
async def test_what_is_overdue_comes_at_the_rate_and_in_its_order() -> None:
    async with fleet() as ours:
        ours.rate = 50 * NEWCOMERS
        for number in range(200):
            connect_used(ours, f"tenant-{number:03}", due_in=number - 200)
        async with looping(desk(ours), "renewals"):
            await pass_time(2)
            early = rotated(ours)

            await pass_time(3)

        # Fifty a second for one that gives no signs of life; and a burst of a tenth of that.
        assert 95 <= len(early) <= 105
        assert early == [f"tenant-{number:03}" for number in range(len(early))]
        assert len(rotated(ours)) == 200


@in_virtual_time
async def test_a_caller_goes_before_planned_work() -> None:
    async with fleet() as ours:
        connect_used(ours, "planned", due_in=0)
        ours.connect_expired(tenant="asked", subject=None)
        one = desk(ours)
        async with places_taken(one, 49), looping(one, "renewals"):
            async with places_taken(one, 1):
                await pass_time(2)
                assert one.service.turnstile.waiting == 1
                call = one.call(one.generation("asked"))
                await pass_time(2)

            assert await call == 8
            await pass_time(2)

        claimed = [each.tenant for each in one.told.of(AttemptClaimed)]
        assert claimed == ["asked", "planned"]


@in_virtual_time
async def test_a_renewal_keeps_no_place_from_callers_who_came_first() -> None:
    async with fleet() as ours:
        connect_used(ours, due_in=0)
        one, gate = desk(ours), Gate("read")
        ours.world.on_departure = gate
        async with places_taken(one, 49), looping(one, "renewals"), asyncio.timeout(60):
            call = one.call(one.generation())
            await gate.reached.wait()
            await pass_time(1)  # the renewal has the last place
            gate.open()
            await pass_time(5)

            assert rotated(ours) == ["acme"]
            assert await call == 8


@in_virtual_time
async def test_who_asks_during_a_renewal_shares_it() -> None:
    async with fleet() as ours:
        connect_used(ours, due_in=0)
        one = desk(ours)
        ours.pleo.sandbox.faults.add(Hold(when="after"), grant_type="refresh_token")
        async with looping(one, "renewals"):
            await pass_time(1)
            call = one.call(one.generation())
            await pass_time(1)
            ours.pleo.sandbox.release()

            assert await call == 8
            assert ours.counts().presentations == 1
            assert len(one.told.of(FlightStarted)) == 1


@in_virtual_time
async def test_while_the_breaker_is_open_nothing_is_renewed() -> None:
    async with fleet() as ours:
        connect_used(ours, due_in=0)
        breaker = Breaker(
            cause=BreakerCause.CLIENT_REJECTED,
            code="invalid_client",
            since=virtual_now(),
            probe_at=virtual_now(),
            probes=0,
        )
        ours.world.fleet = replace(ours.world.fleet, breaker=breaker)
        one = desk(ours)
        async with looping(one, "fleet", "renewals"):
            await pass_time(30)

            assert ours.counts().presentations == 0


@in_virtual_time
async def test_while_the_guard_holds_what_is_idle_waits() -> None:
    async with fleet() as ours:
        connect_used(ours, due_in=0)
        ours.connect_expired(tenant="idle", subject=None, refreshed_at=THE_NOW - KEEPALIVE)
        guard = hold(ours.world.fleet.guard, now=virtual_now(), hold_for=AN_HOUR)
        ours.world.fleet = replace(ours.world.fleet, guard=guard)
        async with looping(desk(ours), "fleet", "renewals"):
            await pass_time(30)

            assert rotated(ours) == ["acme"]

            ours.world.fleet = replace(ours.world.fleet, guard=Guard())
            await pass_time(30)

            assert rotated(ours) == ["acme", "idle"]


@in_virtual_time
async def test_a_look_that_fails_is_told_and_made_again() -> None:
    async with fleet() as ours:
        connect_used(ours, due_in=0)
        ours.world.fail_next("take renewals")
        one = desk(ours)
        async with looping(one, "renewals"):
            await pass_time(3)

            assert one.told.of(LoopFailed) == [
                LoopFailed(loop="renewals", error="STORE_UNAVAILABLE")
            ]
            assert rotated(ours) == ["acme"]


@in_virtual_time
async def test_a_renewal_that_fails_says_why_and_stops_no_other() -> None:
    async with fleet() as ours:
        connect_used(ours, "refused", "other", due_in=0)
        pair = some_grant(tenant="refused").pair
        ours.put(replace(ours.grant("refused"), pair=pair))
        one = desk(ours)
        async with looping(one, "renewals"):
            await pass_time(5)

        reasons = {each.tenant: each.reason for each in one.told.of(RenewalEnded)}
        assert reasons == {"refused": "REAUTH_REQUIRED", "other": ""}


@in_virtual_time
async def test_a_broker_that_is_stopping_renews_nothing() -> None:
    async with fleet() as ours:
        connect_used(ours)
        one = desk(ours)
        async with looping(one, "renewals"):
            await one.service.settled(patience=1)
            await pass_time(DUE_IN + 5)

            assert ours.counts().presentations == 0
            # What it had taken, the other replicas would leave alone.
            assert ours.world.renewals_taken == {}


@in_virtual_time
async def test_answers_that_do_not_come_stop_no_other_renewal() -> None:
    async with fleet() as ours:
        tenants = [f"tenant-{number}" for number in range(300)]
        connect_used(ours, *tenants, due_in=0)
        ours.pleo.sandbox.faults.add(Hold(when="after"), grant_type="refresh_token")
        async with looping(desk(ours), "renewals"):
            await pass_time(8)

            assert len(rotated(ours)) == 299
            ours.pleo.sandbox.release()


@in_virtual_time
async def test_slow_answers_keep_no_place_empty() -> None:
    async with fleet() as ours:
        tenants = [f"tenant-{number}" for number in range(300)]
        connect_used(ours, *tenants, due_in=0)
        one = desk(ours)
        began = seconds_gone()
        async with looping(one, "renewals"), asyncio.timeout(60):
            while len(rotated(ours)) < 300:
                await pass_time(0.1)

        # At fifty a second six seconds, less the burst, plus a turn.
        assert seconds_gone() - began <= 6.5


class OddRenewals:
    """Has an odd one, then others at the moment in which that one fails, then one at a time."""

    def __init__(self) -> None:
        self.looks = 0
        self.fails = asyncio.Event()
        self.renewed: list[str] = []

    async def take(self, which: Planned, *, limit: int) -> Sequence[Due]:
        if which is Planned.IDLE:
            return ()
        self.looks += 1
        names = [f"tenant-{self.looks}-{number}" for number in range(limit)]
        if self.looks == 1:
            names = ["odd"]
        elif self.looks == 2:
            self.fails.set()
            await asyncio.sleep(0)  # the odd one fails; the group is about to end
        else:
            names = names[:1]
        return [Due(tenant=name, delay=timedelta(0)) for name in names]

    async def renew(self, tenant: str) -> None:
        if tenant == "odd":
            await self.fails.wait()
            raise ValueError(tenant)
        self.renewed.append(tenant)


@in_virtual_time
async def test_what_comes_late_is_renewed_earlier_the_next_time() -> None:
    async with fleet() as ours:
        ours.jitter = 0.5
        connect_used(ours, "in time", due_in=0.0)
        connect_used(ours, "late", due_in=-600.0)
        one = ours.replica()

        for tenant in ("in time", "late"):
            await one.obtain.renew(tenant)

        in_time, late = ours.grant("in time").renew_at, ours.grant("late").renew_at
        assert in_time is not None
        assert late is not None
        assert in_time - late > timedelta(minutes=3)


@in_virtual_time
async def test_a_renewal_costs_three_statements_and_no_lease() -> None:
    async with fleet() as ours:
        connect_used(ours, due_in=0.0)
        one = ours.replica()
        await one.known.poll()
        gate = ours.watch()

        await one.obtain.renew("acme")

        assert gate.calls == ["read", "apply", "apply"]
        assert one.told.of(LeaseAnswered) == []


@in_virtual_time
async def test_a_renewal_and_a_caller_elsewhere_present_once() -> None:
    async with fleet() as ours:
        connect_used(ours, due_in=0.0)
        ours.pleo.sandbox.faults.add(Hold())
        one, two = ours.replica("one"), ours.replica("two")
        renewal = ours.tasks.create_task(one.obtain.renew("acme"), name="renewal")
        await ours.pleo.sandbox.until(held=1)
        call = two.call()
        await pass_time(1)

        ours.pleo.sandbox.release()
        await renewal
        await call

        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_deadline_that_passes_on_the_way_is_read_anew() -> None:
    async with fleet() as ours:
        deadline = THE_NOW + timedelta(seconds=0.05)
        ours.connect_expired(attempt=some_attempt(deadline=deadline))
        one = ours.replica()

        async def travels(call: Call) -> None:
            if call.method == "read":
                await pass_time(0.1)

        ours.world.on_departure = travels
        await one.obtain.renew("acme")

        assert one.memory.fresh("acme") is not None


@in_virtual_time
async def test_renewals_that_never_began_stop_none_after_them() -> None:
    async with fleet() as ours:
        one, odd = desk(ours), OddRenewals()
        turnstile = Turnstile(most_at_once=50, rate=lambda: 1.0)
        renewing = Renewing(
            odd, odd.renew, Recorder(), fleet=one.service.fleet, turnstile=turnstile
        )
        with suppress(ExceptionGroup):
            await renewing.run()

        async with running(renewing.run()):
            await pass_time(30)

        assert len(odd.renewed) > 5
