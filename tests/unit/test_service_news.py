"""News of other replicas: announcements and the poll, each without the other (law 6)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker.domain.errors import StoreUnavailable
from broker.domain.facts import LoopFailed, MemoryDropped
from broker.ports import GrantMoved
from broker.service.loops import repeat
from broker.service.news import POLL_SECONDS, moved_to
from support.grants import some_grant
from support.service import Fleet, Recorder, fleet, running, seconds_gone, some_reading
from support.virtual_time import in_virtual_time, let_others_run, pass_time


def rotated_elsewhere(ours: Fleet) -> GrantMoved:
    """Moves the grant on, past this replica."""
    grant = ours.grant()
    ours.put(replace(grant, generation=grant.generation + 1))
    return GrantMoved(
        tenant="acme", generation=grant.generation + 1, version=ours.world.rows["acme"].version
    )


@in_virtual_time
async def test_an_announcement_makes_the_copy_stale() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        async with running(one.news.listen()):
            await pass_time(1)
            await one.get()
            ours.redis.publish(rotated_elsewhere(ours))
            await let_others_run()

            assert one.memory.fresh("acme") is None
            assert (await one.get()).generation == 8
            assert one.told.of(MemoryDropped)[-1] == MemoryDropped(tenant="acme", cause="moved")


@in_virtual_time
async def test_the_poll_makes_the_copy_stale_without_redis() -> None:
    async with fleet() as ours:
        ours.redis.is_reachable = False
        ours.connect()
        one = ours.replica()
        await one.news.poll()
        await pass_time(1)
        await one.get()
        rotated_elsewhere(ours)

        await one.news.poll()

        assert one.memory.fresh("acme") is None
        assert (await one.get()).generation == 8


@in_virtual_time
async def test_the_poll_leaves_what_is_up_to_date() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        await one.news.poll()
        await pass_time(1)
        rotated_elsewhere(ours)
        await one.get()

        await one.news.poll()

        assert one.memory.fresh("acme") is not None


@in_virtual_time
async def test_what_was_read_before_the_first_look_is_read_again() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        await one.get()
        rotated_elsewhere(ours)

        await one.news.poll()

        assert one.memory.fresh("acme") is None


@in_virtual_time
async def test_a_poll_that_fails_misses_nothing() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        await one.news.poll()
        await pass_time(1)
        await one.get()
        rotated_elsewhere(ours)
        ours.world.fail_next("changes")
        with pytest.raises(StoreUnavailable):
            await one.news.poll()

        await one.news.poll()

        assert one.memory.fresh("acme") is None


@in_virtual_time
async def test_a_database_gone_back_in_time_makes_all_copies_stale() -> None:
    async with fleet() as ours:
        saved = ours.world.save()
        ours.connect()
        one = ours.replica()
        await one.news.poll()
        await pass_time(1)
        await one.get()
        ours.world.restore(saved)

        await one.news.poll()

        assert one.memory.fresh("acme") is None
        assert one.told.of(MemoryDropped)[-1] == MemoryDropped(tenant=None, cause="rewound")


@in_virtual_time
async def test_all_copies_become_stale_when_redis_is_back() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        async with running(one.news.listen()):
            await pass_time(1)
            await one.get()
            ours.redis.is_reachable = False
            rotated_elsewhere(ours)
            ours.redis.is_reachable = True
            await let_others_run()

            assert one.memory.fresh("acme") is None
            dropped = MemoryDropped(tenant=None, cause="resubscribed")
            assert one.told.of(MemoryDropped) == [dropped, dropped]


@pytest.mark.parametrize("way", ["announced", "polled", "own"])
@in_virtual_time
async def test_news_wakes_whoever_waits_for_it(way: str) -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()
        await one.news.poll()
        waiting = [ours.tasks.create_task(one.news.wait("acme", 60), name="w") for _ in range(2)]
        async with running(one.news.listen()):
            await pass_time(3)
            moved = rotated_elsewhere(ours)
            match way:
                case "announced":
                    ours.redis.publish(moved)
                case "polled":
                    await one.news.poll()
                case _:
                    ours.redis.is_reachable = False
                    await one.news.announce(moved)
            await asyncio.gather(*waiting)

        assert seconds_gone() == 3


@in_virtual_time
async def test_news_of_another_tenant_wakes_nobody() -> None:
    async with fleet() as ours:
        one = ours.replica()
        waiting = ours.tasks.create_task(one.news.wait("acme", 60), name="waits")
        await let_others_run()

        await one.news.announce(GrantMoved(tenant="other", generation=1))
        await waiting

        assert seconds_gone() == 60


@in_virtual_time
async def test_nobody_is_remembered_who_has_stopped_waiting() -> None:
    async with fleet() as ours:
        one = ours.replica()
        patient = ours.tasks.create_task(one.news.wait("acme", 60), name="patient")
        leaving = ours.tasks.create_task(one.news.wait("acme", 60), name="leaving")
        await let_others_run()

        leaving.cancel()
        await one.news.wait("acme", 1)
        await patient

        assert one.news._waiting == {}  # noqa: SLF001 - nothing shows it outside


@in_virtual_time
async def test_a_written_row_is_told_with_its_version() -> None:
    told = moved_to(some_reading(some_grant(), version=9))

    assert told == GrantMoved(tenant="acme", generation=7, version=9)


@in_virtual_time
async def test_a_loop_goes_on_after_any_failure() -> None:
    told, turns = Recorder(), list[float]()

    async def turn() -> None:
        turns.append(seconds_gone())
        if len(turns) == 1:
            raise StoreUnavailable("away")
        if len(turns) == 2:
            raise ZeroDivisionError
        raise ExceptionGroup("of a task group", [ExceptionGroup("", [StoreUnavailable("away")])])

    async with running(repeat("polls", turn, pause=POLL_SECONDS, observer=told)):
        await pass_time(5)

    assert turns == [0, 2, 4]
    assert told.facts == [
        LoopFailed(loop="polls", error="STORE_UNAVAILABLE"),
        LoopFailed(loop="polls", error="ZeroDivisionError"),
        LoopFailed(loop="polls", error="STORE_UNAVAILABLE"),
    ]
