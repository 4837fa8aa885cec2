"""What `ports.Leases` promises, of the fake and of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.facts import LeaseOutcome, LeaseStanding
from broker.ports import Leases, LeaseSeen
from support.redis_worlds import QUICK, RedisServers, RedisWorld, ask, redis_world, until_answered

ACQUIRED, HELD, UNREACHABLE = LeaseOutcome

TTL = QUICK.ttl.total_seconds()


@pytest.fixture(params=["fake", "valkey", "sentinel", "cluster"])
async def world(
    request: pytest.FixtureRequest, redis_servers: RedisServers
) -> AsyncIterator[RedisWorld]:
    async with redis_world(request.param, redis_servers) as made:
        yield made


@pytest.fixture
async def first(world: RedisWorld) -> Leases:
    return (await world.replica())[0]


@pytest.fixture
async def second(world: RedisWorld) -> Leases:
    return (await world.replica())[0]


async def test_who_asks_first_holds_the_lease_and_the_next_is_told_so(
    first: Leases, second: Leases
) -> None:
    async with first.hold("acme") as outcome:
        assert outcome is ACQUIRED
        assert await ask(second, "acme") is HELD
        assert await ask(first, "acme") is HELD


async def test_a_lease_is_free_again_after_the_block(first: Leases, second: Leases) -> None:
    await ask(first, "acme")

    assert await ask(second, "acme") is ACQUIRED


async def test_one_tenants_lease_is_no_other_tenants(first: Leases, second: Leases) -> None:
    async with first.hold("acme"):
        assert await ask(second, "acme:2 {x} ü") is ACQUIRED


async def test_a_lease_lasts_beyond_its_ttl_while_the_block_runs(
    first: Leases, second: Leases
) -> None:
    loop = asyncio.get_running_loop()
    async with first.hold("acme"):
        twice_the_ttl = loop.time() + 2 * TTL
        while loop.time() < twice_the_ttl:
            assert await ask(second, "acme") is HELD
            await asyncio.sleep(0.01)


async def test_a_lease_ends_with_its_whole_life_though_the_block_runs_on(
    world: RedisWorld, second: Leases
) -> None:
    loop = asyncio.get_running_loop()
    quarter, life = timedelta(seconds=0.25), timedelta(seconds=1.2)
    first, _ = await world.replica(replace(QUICK, connect=quarter, answer=quarter, life=life))
    began = loop.time()

    async with first.hold("acme"):
        await until_answered(second, "acme", ACQUIRED)

    assert TTL < loop.time() - began < 2


async def test_what_redis_forgot_is_free_and_its_holder_takes_nothing_from_the_next(
    world: RedisWorld, first: Leases, second: Leases
) -> None:
    third, _ = await world.replica()
    async with first.hold("acme"):
        await world.flush()
        next_holder = second.hold("acme")
        assert await next_holder.__aenter__() is ACQUIRED

    assert await ask(third, "acme") is HELD
    await next_holder.__aexit__(None, None, None)
    assert await ask(first, "other") is ACQUIRED  # to have lost a lease is no failure of Redis


async def test_without_redis_the_block_runs_and_knows(world: RedisWorld, first: Leases) -> None:
    await world.cut_off()

    assert await ask(first, "acme") is UNREACHABLE


async def test_after_a_failure_redis_is_not_asked_for_a_while_and_then_again(
    world: RedisWorld, first: Leases
) -> None:
    loop = asyncio.get_running_loop()
    await world.cut_off()
    await ask(first, "acme")
    failed_at = loop.time()
    await world.heal()

    assert await ask(first, "acme") is UNREACHABLE
    await until_answered(first, "acme", ACQUIRED)
    assert loop.time() - failed_at > 0.9 * QUICK.pause.total_seconds()


async def test_a_holder_does_not_notice_that_redis_went(world: RedisWorld, first: Leases) -> None:
    async with first.hold("acme") as outcome:
        await world.cut_off()

    assert outcome is ACQUIRED


async def test_a_lease_whose_holder_cannot_give_it_back_ends_with_its_ttl(
    world: RedisWorld, second: Leases
) -> None:
    first, _ = await world.replica(replace(QUICK, ttl=timedelta(seconds=1)))
    async with first.hold("acme"):
        await world.cut_off()
    await world.heal()

    await until_answered(second, "acme", HELD)
    await until_answered(second, "acme", ACQUIRED)


async def test_a_lease_that_could_not_be_extended_is_free_though_the_block_runs_on(
    world: RedisWorld, first: Leases, second: Leases
) -> None:
    async with first.hold("acme"):
        await world.cut_off()
        await asyncio.sleep(TTL)
        await world.heal()

        await until_answered(second, "acme", ACQUIRED)


async def test_a_lease_not_given_back_because_of_the_pause_ends_with_its_ttl(
    world: RedisWorld, first: Leases, second: Leases
) -> None:
    async with first.hold("acme"):
        await world.lose_the_next_answer()
        assert await ask(first, "other") is UNREACHABLE
        await world.heal()

    await until_answered(second, "acme", ACQUIRED)


async def test_a_lease_that_was_taken_and_not_acknowledged_is_its_takers(
    world: RedisWorld, second: Leases
) -> None:
    long = replace(QUICK, ttl=timedelta(minutes=1), pause=timedelta(milliseconds=10))
    first, _ = await world.replica(long)
    await world.lose_the_next_answer()
    assert await ask(first, "acme") is UNREACHABLE
    await world.heal()

    await until_answered(second, "acme", HELD)
    await until_answered(first, "acme", ACQUIRED)
    assert await ask(second, "acme") is ACQUIRED


@pytest.mark.parametrize("is_lost", [False, True])
async def test_what_the_block_raises_comes_out_as_itself(
    world: RedisWorld, first: Leases, *, is_lost: bool
) -> None:
    failure = ValueError("the block's own")

    async def fail() -> None:
        async with first.hold("acme"):
            if is_lost:
                await world.cut_off()
            raise failure

    with pytest.raises(ValueError, match="own") as caught:
        await fail()
    assert caught.value is failure


async def test_a_holder_that_is_cancelled_ends_and_gives_the_lease_back(
    first: Leases, second: Leases
) -> None:
    is_holding = asyncio.Event()

    async def hold() -> None:
        async with first.hold("acme"):
            is_holding.set()
            await asyncio.Event().wait()

    holder = asyncio.ensure_future(hold())
    await is_holding.wait()
    holder.cancel()

    with pytest.raises(asyncio.CancelledError):
        await holder
    assert await ask(second, "acme") is ACQUIRED


async def test_whoever_looks_sees_who_holds_a_lease_and_for_how_long(
    first: Leases, second: Leases
) -> None:
    async with first.hold("acme"):
        seen = await second.look("acme")
    after = await second.look("acme")

    assert (seen.standing, seen.holder) == (LeaseStanding.HELD, "one")
    assert seen.remaining is not None
    assert timedelta(0) < seen.remaining <= QUICK.ttl
    assert after == LeaseSeen(standing=LeaseStanding.FREE)


async def test_looking_takes_no_lease_and_ends_none(first: Leases, second: Leases) -> None:
    await first.look("acme")

    async with second.hold("acme") as outcome:
        await first.look("acme")
        assert (outcome, await ask(first, "acme")) == (ACQUIRED, HELD)


async def test_of_a_redis_that_is_away_nobody_knows_the_leases(
    world: RedisWorld, first: Leases
) -> None:
    await world.cut_off()

    assert await first.look("acme") == LeaseSeen(standing=LeaseStanding.UNREACHABLE)
