"""The ways to break the fake store: what it promises beyond the port that it upholds."""

from __future__ import annotations

import pytest

from broker.domain.errors import StoreUnavailable
from broker.ports import Change
from support.fake_store import FakeGrantStore
from support.fake_world import Call, FakeWorld
from support.grants import THE_NOW, some_grant


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld(now=lambda: THE_NOW)


async def test_a_failure_at_arrival_writes_nothing(world: FakeWorld) -> None:
    store = FakeGrantStore(world)
    before = await store.read("acme")
    world.fail_next("apply")

    with pytest.raises(StoreUnavailable):
        await store.apply(before, Change(after=some_grant()))

    assert world.rows == {}
    assert await store.apply(before, Change(after=some_grant())) is not None


async def test_a_failure_at_departure_has_written_everything(world: FakeWorld) -> None:
    store = FakeGrantStore(world)
    before = await store.read("acme")
    world.fail_next("apply", when="departure", times=2)

    with pytest.raises(StoreUnavailable):
        await store.apply(before, Change(after=some_grant()))
    with pytest.raises(StoreUnavailable):
        await store.apply(before, Change(after=some_grant(generation=9)))

    assert world.rows["acme"].grant.generation == 7


async def test_hooks_see_every_call_come_and_go(world: FakeWorld) -> None:
    seen: list[tuple[str, Call]] = []

    async def arrival(call: Call) -> None:
        seen.append(("arrival", call))

    async def departure(call: Call) -> None:
        seen.append(("departure", call))

    world.on_arrival, world.on_departure = arrival, departure
    await FakeGrantStore(world).read("acme")

    the_call = Call(method="read", tenant="acme")
    assert seen == [("arrival", the_call), ("departure", the_call)]


async def test_a_restored_world_has_lost_what_came_after_the_backup(world: FakeWorld) -> None:
    store = FakeGrantStore(world)
    await store.apply(await store.read("acme"), Change(after=some_grant()))
    saved = world.save()
    await store.apply(await store.read("acme"), Change(after=some_grant(generation=8)))
    cursor = (await store.changes(-1)).cursor

    world.restore(saved)

    assert (await store.read("acme")).grant.generation == 7
    assert (await store.changes(cursor)).is_rewound
