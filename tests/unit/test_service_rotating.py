"""RefreshGrant: rotations that are not due. Shared, fenced, and on record."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta

import pytest

from broker.domain.errors import (
    BrokerError,
    GrantHeld,
    ProviderUnavailable,
    ReauthRequired,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    StoreUnavailable,
    TenantNotFound,
)
from broker.domain.facts import FlightEnded
from broker.domain.grant import Grant, GrantState
from broker.sandbox.faults import Hang, Hold, fail
from broker.service.messages import RefreshGrant
from support.consent_service import Desk, desk
from support.grants import some_reauth
from support.service import BUDGET, Fleet, fleet, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time

ANNA = "uri:spiffe://example.org/anna"


def rotate(
    one: Desk, *, reason: str = "OPS-17", budget: timedelta = BUDGET
) -> Coroutine[object, object, Grant]:
    request = RefreshGrant(tenant="acme", caller=ANNA, reason=reason)
    return one.service.broker.refresh_grant(request, budget=budget)


async def fails(one: Desk, why: type[BrokerError], *, budget: timedelta = BUDGET) -> None:
    with pytest.raises(why):
        await rotate(one, budget=budget)


def recorded(ours: Fleet) -> list[tuple[str, str, str]]:
    return [(each.actor, each.call, each.reason) for each in ours.world.events]


@in_virtual_time
async def test_a_fresh_token_is_rotated_and_the_old_one_served_no_more() -> None:
    async with fleet() as ours:
        ours.connect()
        one, two = desk(ours), desk(ours, "two")
        assert await one.generation() == await two.generation() == 7

        grant = await rotate(one)

        assert (grant.generation, ours.grant().generation) == (8, 8)
        assert await one.generation() == 8
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_who_asked_and_why_is_on_record() -> None:
    async with fleet() as ours:
        ours.connect()

        await rotate(desk(ours), reason="the token leaked")

        assert recorded(ours) == [(ANNA, "OperationsService/RefreshGrant", "the token leaked")]


@in_virtual_time
async def test_calls_at_the_same_time_share_one_rotation_and_are_all_recorded() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        calls = [ours.tasks.create_task(rotate(each), name="a call") for each in (one, one, two)]
        await ours.pleo.sandbox.until(held=1)
        await let_others_run()
        ours.pleo.sandbox.release()

        got = await asyncio.gather(*calls)

        assert [grant.generation for grant in got] == [8, 8, 8]
        assert ours.counts().presentations == 1
        assert len(recorded(ours)) == 3
        assert [ended.waiters for ended in one.told.of(FlightEnded)] == [2]


@in_virtual_time
async def test_each_call_after_another_is_a_rotation() -> None:
    async with fleet() as ours:
        ours.connect()
        one = desk(ours)

        generations = [(await rotate(one)).generation for _ in range(3)]

        assert generations == [8, 9, 10]
        assert ours.counts().presentations == 3


@in_virtual_time
async def test_an_attempt_that_is_under_way_is_waited_for_and_does() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Hold(when="after"))
        one, two = desk(ours), desk(ours, "two")
        caller = ours.tasks.create_task(one.generation(), name="a caller")
        await ours.pleo.sandbox.until(held=1)
        operator = ours.tasks.create_task(rotate(two), name="an operator")
        await let_others_run()
        ours.pleo.sandbox.release()

        assert (await caller, (await operator).generation) == (8, 8)
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_a_grant_that_is_none_is_not_found_and_nothing_is_recorded() -> None:
    async with fleet() as ours:
        await fails(desk(ours), TenantNotFound)

        assert recorded(ours) == []


STATES: dict[GrantState, type[BrokerError]] = {
    GrantState.REAUTH_REQUIRED: ReauthRequired,
    GrantState.HELD: GrantHeld,
    GrantState.REVOKED: TenantNotFound,
}


@pytest.mark.parametrize("state", STATES)
def test_a_grant_that_serves_nothing_is_not_presented(state: GrantState) -> None:
    @in_virtual_time
    async def story() -> None:
        async with fleet() as ours:
            ours.connect(state=state, reauth=some_reauth())

            await fails(desk(ours), STATES[state])

            assert ours.counts().presentations == 0
            assert recorded(ours) == []

    story()


@in_virtual_time
async def test_a_failure_is_told_although_the_old_token_lives() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(fail(503))
        one = desk(ours)
        await one.generation()

        await fails(one, RefreshOutcomeUnknown)

        assert len(recorded(ours)) == 1


@in_virtual_time
async def test_a_pause_after_a_failure_is_kept_for_operators_too() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(fail(429))
        one = desk(ours)
        await fails(one, ProviderUnavailable)

        await fails(one, ProviderUnavailable)

        assert ours.counts().presentations == 1


@in_virtual_time
async def test_nothing_is_presented_that_could_not_be_recorded() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.world.fail_next("apply")

        await fails(desk(ours), StoreUnavailable)

        assert ours.counts().presentations == 0


@in_virtual_time
async def test_who_cannot_wait_is_told_shortly_before_its_deadline() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(Hang())
        one = desk(ours)

        await fails(one, RefreshInProgress, budget=timedelta(seconds=5))
        assert seconds_gone() == pytest.approx(4.7)
        await pass_time(30)

        assert ours.counts().presentations == 1
