"""Rare weather: a read-only PostgreSQL, a restore, a shutdown in a conflict, two tenants' token."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.domain.errors import BrokerError, RefreshTokenRejected, StoreUnavailable
from broker.domain.facts import AttemptAnswered, AttemptSending
from broker.domain.grant import Grant, GrantState
from broker.sandbox.faults import Delay
from support.consent_service import desk
from support.fake_world import Call
from support.grants import THE_NOW
from support.service import Fleet, Replica, fleet, seconds_gone
from support.virtual_time import in_virtual_time, let_others_run, pass_time


async def known(ours: Fleet, one: Replica) -> None:
    """Lets a replica have a copy of a row that has been written many times."""
    await one.news.poll()
    await pass_time(1)
    for _ in range(5):
        ours.put(ours.grant())
    await one.get()
    await one.news.poll()


async def rewound(one: Replica) -> None:
    """Lets a replica notice the restore, and a moment pass."""
    await pass_time(1)
    await one.news.poll()
    await pass_time(1)


@in_virtual_time
async def test_a_quarantine_counts_no_time_in_which_nothing_can_be_stored() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.redis.is_reachable = False
        one, two = ours.replica("one"), ours.replica("two")

        async def read_only(call: Call) -> None:
            # The claim of the second falls between two tries of the first to store its pair.
            is_rotated = bool(one.told.of(AttemptAnswered))
            is_writable = 31.3 < seconds_gone() < 31.9 or seconds_gone() > 51.39
            if call.method == "apply" and is_rotated and not is_writable:
                raise StoreUnavailable("read only")

        ours.world.on_arrival = read_only
        first = one.call()
        await pass_time(31.4)
        second = two.call()
        await pass_time(120)

        assert ours.counts().presentations_of_superseded == 0
        assert ours.grant().generation == 8
        await first
        await second


@in_virtual_time
async def test_after_a_restore_what_is_read_is_kept_again() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        saved = ours.world.save()
        await known(ours, one)
        ours.world.restore(saved)
        await rewound(one)

        await one.get()

        assert one.memory.fresh("acme") is not None


@in_virtual_time
async def test_a_grant_revoked_after_a_restore_is_not_served_from_memory() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        saved = ours.world.save()
        await known(ours, one)
        ours.world.restore(saved)
        await rewound(one)
        revoked = replace(ours.grant(), state=GrantState.REVOKED, generation=8, revoked_at=THE_NOW)
        ours.put(replace(revoked, pair=None))

        assert isinstance(await one.call(), BrokerError)

        assert one.memory.living("acme", above_generation=0) is None


@in_virtual_time
async def test_a_claim_that_lost_a_conflict_is_not_made_while_stopping() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = desk(ours)
        writes = 0

        async def slow_and_in_conflict(call: Call) -> None:
            nonlocal writes
            if call.method == "apply":
                writes += 1
                await pass_time(5.5)
                if writes == 1:
                    ours.put(ours.grant())

        ours.world.on_arrival = slow_and_in_conflict
        call = one.call(one.generation())
        await let_others_run()

        await one.service.settled(patience=10)
        await pass_time(30)

        assert one.told.of(AttemptSending) == []
        assert isinstance(await call, BrokerError)


@pytest.mark.parametrize("at_once", [False, True])
@in_virtual_time
async def test_a_token_that_two_tenants_bring_is_presented_for_one(at_once: bool) -> None:  # noqa: FBT001 - of the table
    async with fleet() as ours:
        brought = ours.pleo.connect()
        ours.pleo.sandbox.faults.add(Delay(seconds=1))
        one, two = desk(ours), desk(ours, "two")
        first = one.call(one.bring(brought.refresh_token))
        if not at_once:
            await first
        second = two.call(two.bring(brought.refresh_token, tenant="other"))

        made = [await first, await second]

        assert sum(isinstance(each, Grant) for each in made) == 1
        assert sum(isinstance(each, RefreshTokenRejected) for each in made) == 1
        assert ours.counts().presentations == 1
