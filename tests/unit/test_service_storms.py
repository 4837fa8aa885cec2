"""Rare weather: a read-only PostgreSQL, a restore, a shutdown in a conflict, two tenants' token."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from broker.domain.errors import BrokerError, RefreshTokenRejected, StoreUnavailable
from broker.domain.facts import AttemptSending
from broker.domain.grant import Grant, GrantState
from broker.service.settle import Claimed
from support.consent_service import desk
from support.fake_world import Call
from support.grants import THE_NOW, some_attempt
from support.service import TIMES, Fleet, Replica, fleet, seconds_gone
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
        ours.connect_expired(
            attempt=some_attempt(number=12, attempt_id="dead", deadline=THE_NOW), last_attempt=12
        )
        one = ours.replica()
        claimed = await one.claims.claim_refresh(await one.rows.read("acme"))
        assert isinstance(claimed, Claimed)

        async def read_only(call: Call) -> None:
            if call.method == "apply" and seconds_gone() < 19.9:
                raise StoreUnavailable("read only")

        ours.world.on_arrival = read_only
        await one.arming.armed(claimed)

        assert seconds_gone() >= 19 + TIMES.quarantine.total_seconds()


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


@in_virtual_time
async def test_a_token_that_two_tenants_bring_is_presented_for_the_first() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        one, two = desk(ours), desk(ours, "two")

        await one.bring(brought.refresh_token)
        error = await two.call(two.bring(brought.refresh_token, tenant="other"))

        assert isinstance(error, RefreshTokenRejected)
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_of_two_tenants_that_bring_one_token_at_once_one_claims() -> None:
    async with fleet() as ours:
        brought = ours.pleo.connect()
        one, two = desk(ours), desk(ours, "two")
        both_write, waiting = asyncio.Event(), set[str]()

        async def meet(call: Call) -> None:
            # Each has found no record of the token by now.
            if call.method == "apply":
                waiting.add(call.tenant)
                if len(waiting) > 1:
                    both_write.set()
                await both_write.wait()

        ours.world.on_arrival = meet
        calls = [
            one.call(one.bring(brought.refresh_token)),
            two.call(two.bring(brought.refresh_token, tenant="other")),
        ]
        made = [await each for each in calls]

        assert sum(isinstance(each, Grant) for each in made) == 1
        assert sum(isinstance(each, RefreshTokenRejected) for each in made) == 1
        assert ours.counts().presentations == 1
