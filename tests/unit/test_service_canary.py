"""The canary: one held grant, presented again once, and what is believed of its answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.errors import GrantHeld, StoreUnavailable
from broker.domain.grant import Doubt, GrantState, Reauth, ReauthCause
from broker.domain.guard import BROKER, Canary, GuardState
from broker.sandbox.faults import fail, refuse
from broker.service.messages import ServedToken
from support.consent_service import Desk, HoldOne, desk, looping
from support.grants import THE_NOW, some_reauth
from support.incidents import (
    FIVE,
    ask_all,
    guard_turns,
    held_five,
    presentations,
    put_held,
    states,
)
from support.service import Fleet, fleet, virtual_now
from support.virtual_time import in_virtual_time, pass_time

ACTIVE = GrantState.ACTIVE
HELD = GrantState.HELD

LOOPS = ("fleet", "guard", "canary", "tidying")


def canary_of(ours: Fleet) -> Canary:
    canary = ours.world.fleet.guard.canary
    assert canary is not None
    return canary


async def held_with_canary(one: Desk) -> str:
    """Lets the guard hold five grants; returns the canary, which is not asked yet."""
    await held_five(one)
    await one.service.canary.turn()
    return canary_of(one.fleet).tenant


def refuse_all(ours: Fleet) -> None:
    ours.pleo.sandbox.faults.add(refuse("invalid_grant"), times=None)


@in_virtual_time
async def test_a_canary_that_rotates_frees_all_and_each_is_presented_once_more() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)

        async with looping(one, *LOOPS):
            await pass_time(10)

        assert states(ours) == {ACTIVE}
        assert presentations(ours) == 6
        answers = await ask_all(one, FIVE)
        assert [answer.generation for answer in answers if isinstance(answer, ServedToken)] == [
            8
        ] * 5
        assert presentations(ours) == 10
        assert ours.world.fleet.guard.state is GuardState.WATCHING
        assert {event.actor for event in ours.world.events} == {BROKER}


@in_virtual_time
async def test_a_canary_takes_back_nothing_that_was_given_up_before() -> None:
    async with fleet() as ours:
        one = desk(ours)
        before = some_reauth()
        until = virtual_now() + timedelta(days=6)
        ours.connect(
            tenant="before",
            state=GrantState.REAUTH_REQUIRED,
            reauth=before,
            quarantined_until=until,
        )
        await held_five(one)

        async with looping(one, *LOOPS):
            await pass_time(10)

        assert states(ours) == {ACTIVE}
        assert ours.grant("before").reauth == before


@in_virtual_time
async def test_a_canary_that_is_refused_is_never_presented_again() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await held_five(one)
        refuse_all(ours)

        async with looping(one, *LOOPS), looping(two, *LOOPS):
            await pass_time(600)

        assert states(ours) == {HELD}
        assert presentations(ours) == 6
        assert {type(answer) for answer in await ask_all(one, FIVE)} == {GrantHeld}


@in_virtual_time
async def test_it_is_the_grant_that_was_refused_first() -> None:
    async with fleet() as ours:
        tenant = await held_with_canary(desk(ours))

        assert tenant == "t1"
        assert canary_of(ours) == Canary(tenant="t1", generation=7, refused_at=THE_NOW)


@in_virtual_time
async def test_two_replicas_choose_the_same_one() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        await held_five(one)
        refuse_all(ours)
        await two.service.fleet.poll()

        for _ in range(5):
            await asyncio.gather(one.service.canary.turn(), two.service.canary.turn())

        assert presentations(ours) == 6


@in_virtual_time
async def test_a_replica_that_read_it_before_it_was_refused_presents_it_not_again() -> None:
    async with fleet() as ours:
        one, two = desk(ours), desk(ours, "two")
        tenant = await held_with_canary(one)
        refuse_all(ours)
        await two.service.fleet.poll()
        hook = HoldOne("read", 1)
        ours.world.on_departure = hook
        late = two.call(two.service.canary.turn())
        await hook.reached.wait()
        await one.call(one.service.canary.turn())
        assert ours.grant(tenant).state is HELD

        hook.let_go()
        await late

        assert presentations(ours) == 6


@in_virtual_time
async def test_a_replica_whose_clock_is_ahead_presents_it_not_again() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        hook = HoldOne("read fleet", 1)
        ours.world.on_departure = hook
        polling = one.call(one.service.fleet.poll())
        await hook.reached.wait()
        await pass_time(5)  # what it takes for the time of PostgreSQL is five seconds late
        hook.let_go()
        await polling
        refuse_all(ours)

        await guard_turns(one, count=5)

        assert presentations(ours) == 6


@in_virtual_time
async def test_a_canary_without_an_answer_is_asked_until_there_is_one() -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        ours.pleo.sandbox.faults.add(fail(502), times=2)

        async with looping(one, *LOOPS):
            await pass_time(300)

        assert states(ours) == {ACTIVE}
        assert presentations(ours) == 8


@in_virtual_time
async def test_a_consent_of_the_canary_and_its_refresh_free_nobody() -> None:
    async with fleet() as ours:
        one = desk(ours)
        tenant = await held_with_canary(one)
        await one.complete(await one.consented(tenant=tenant, allow_subject_change=True))
        grant = ours.grant(tenant)
        ours.put(replace(grant, renew_at=THE_NOW, expires_at=THE_NOW))
        one.service.memory.mark_all_stale()
        assert await one.generation(tenant) == 9
        refuse_all(ours)

        await guard_turns(one, count=10)

        assert states(ours, set(FIVE) - {tenant}) == {HELD}
        assert ours.world.fleet.guard.state is GuardState.HOLDING
        assert canary_of(ours).tenant != tenant


@in_virtual_time
async def test_a_canary_that_is_revoked_is_followed_by_another() -> None:
    async with fleet() as ours:
        one = desk(ours)
        tenant = await held_with_canary(one)
        await one.revoke(tenant=tenant)

        await guard_turns(one, count=6)

        assert states(ours, set(FIVE) - {tenant}) == {ACTIVE}


@pytest.mark.parametrize("doubt", [Doubt.DISCLAIMED, Doubt.ABANDONED])
@in_virtual_time
async def test_what_is_in_doubt_is_no_canary(doubt: Doubt) -> None:
    async with fleet() as ours:
        one = desk(ours)
        doubtful, lost, fit = put_held(ours, 3)
        ours.put(replace(ours.grant(doubtful), doubt=doubt))
        rotation_lost = Reauth(cause=ReauthCause.ROTATION_LOST, since=THE_NOW)
        ours.put(replace(ours.grant(lost), reauth=rotation_lost))

        await guard_turns(one)

        assert canary_of(ours).tenant == fit


@in_virtual_time
async def test_where_none_is_fit_there_is_no_canary() -> None:
    async with fleet() as ours:
        one = desk(ours)
        (tenant,) = put_held(ours, 1)
        ours.world.unreadable[tenant] = True

        await guard_turns(one, count=3)

        assert ours.world.fleet.guard.canary is None
        assert presentations(ours) == 0


@in_virtual_time
async def test_without_a_hold_there_is_no_canary() -> None:
    async with fleet() as ours:
        ours.connect_expired(state=HELD)
        one = desk(ours)

        await one.service.canary.turn()

        assert ours.world.fleet.guard.canary is None


@pytest.mark.parametrize("method", ["apply fleet", "apply", "read", "tenants"])
@in_virtual_time
async def test_a_canary_survives_lost_acknowledgements(method: str) -> None:
    async with fleet() as ours:
        one = desk(ours)
        await held_five(one)
        ours.world.fail_next(method, when="departure")

        for _ in range(6):
            outcome = await one.call(guard_turns(one))
            assert outcome is None or isinstance(outcome, StoreUnavailable)
            await pass_time(2)

        assert states(ours) == {ACTIVE}
        assert presentations(ours) == 6
