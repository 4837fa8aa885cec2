"""What `ports.Announcements` promises, of the fake and of the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from broker.lease.beside import running_beside
from broker.ports import Announcements, GrantMoved, Resubscribed
from support.redis_worlds import Ears, RedisServers, RedisWorld, listening, redis_world

MOVED = GrantMoved(tenant="acme", generation=7)
LATER = GrantMoved(tenant="eu/a@b.c:d_e-F", generation=8)


@pytest.fixture(params=["fake", "valkey", "sentinel", "cluster"])
async def world(
    request: pytest.FixtureRequest, redis_servers: RedisServers
) -> AsyncIterator[RedisWorld]:
    async with redis_world(request.param, redis_servers) as made:
        yield made


@pytest.fixture
async def first(world: RedisWorld) -> Announcements:
    return (await world.replica())[1]


@pytest.fixture
async def second(world: RedisWorld) -> Announcements:
    return (await world.replica())[1]


async def both_hear(one: Ears, other: Ears, moved: GrantMoved) -> None:
    assert [await one.next(), await other.next()] == [moved, moved]


async def test_every_replica_hears_what_one_announces(
    first: Announcements, second: Announcements
) -> None:
    async with listening(first) as own, listening(second) as others:
        await first.announce(MOVED)
        await both_hear(own, others, MOVED)

        await second.announce(LATER)
        await both_hear(own, others, LATER)


async def test_nobody_hears_what_was_announced_before(first: Announcements) -> None:
    await first.announce(MOVED)

    async with listening(first) as ears:
        await first.announce(LATER)

        assert await ears.next() == LATER


async def test_announcing_to_nobody_is_no_error(world: RedisWorld, first: Announcements) -> None:
    await first.announce(MOVED)
    await world.cut_off()
    await first.announce(MOVED)


async def test_an_interruption_is_told_and_what_comes_after_is_heard(
    world: RedisWorld, first: Announcements, second: Announcements
) -> None:
    async with listening(first) as ears:
        await world.cut_off()
        await world.heal()

        assert await ears.next() == Resubscribed()
        await second.announce(MOVED)
        assert await ears.next() == MOVED


async def test_who_begins_to_listen_without_redis_waits_for_it(
    world: RedisWorld, first: Announcements, second: Announcements
) -> None:
    ears = Ears()
    await world.cut_off()
    async with running_beside(ears.listen_to(first), name="ears"):
        await anyio.wait_all_tasks_blocked()
        await world.heal()

        assert await ears.next() == Resubscribed()
        await second.announce(MOVED)
        assert await ears.next() == MOVED
