"""Places for looks: who goes first when all are taken, and none is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.service.places import Haste, Places
from support.virtual_time import in_virtual_time, let_others_run


class Room:
    """One place, and who has had it."""

    def __init__(self) -> None:
        self.places = Places(1)
        self.came: list[str] = []
        self._leaves = asyncio.Event()

    async def enter(self, name: str, haste: Haste) -> None:
        async with self.places.place(name, haste):
            self.came.append(name)
            await self._leaves.wait()

    def open(self) -> None:
        self._leaves.set()


async def after(change: Callable[[Room, dict[str, asyncio.Task[None]]], None]) -> list[str]:
    """Has some wait behind the first, changes something, and returns in which order they came."""
    room, tasks = Room(), dict[str, asyncio.Task[None]]()
    waiting = [
        ("due", Haste.DUE),
        ("late", Haste.DUE),
        ("asked", Haste.ASKED),
        ("news", Haste.NEWS),
    ]
    for name, haste in [("first", Haste.DUE), *waiting]:
        tasks[name] = asyncio.create_task(room.enter(name, haste))
        await let_others_run()
    change(room, tasks)
    room.open()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    # None is lost: the next one finds it free.
    await room.enter("last", Haste.DUE)
    return room.came


@in_virtual_time
async def test_news_goes_before_who_is_asked_for_and_both_before_who_is_due() -> None:
    came = await after(lambda room, tasks: None)  # noqa: ARG005 - nothing changes

    assert came == ["first", "news", "asked", "due", "late", "last"]


@in_virtual_time
async def test_who_waits_may_change_to_a_faster_lane_and_not_to_a_slower_one() -> None:
    def change(room: Room, _: dict[str, asyncio.Task[None]]) -> None:
        room.places.hurry("late", Haste.NEWS)
        room.places.hurry("asked", Haste.DUE)
        room.places.hurry("nobody", Haste.NEWS)

    assert await after(change) == ["first", "news", "late", "asked", "due", "last"]


@in_virtual_time
async def test_who_stops_waiting_keeps_nobody_from_a_place() -> None:
    def change(_: Room, tasks: dict[str, asyncio.Task[None]]) -> None:
        for name in ("news", "due"):
            tasks[name].cancel()

    assert await after(change) == ["first", "asked", "late", "last"]


@in_virtual_time
async def test_who_is_cancelled_in_the_moment_of_its_turn_gives_it_on() -> None:
    room = Room()
    async with room.places.place("first", Haste.DUE):
        second = asyncio.create_task(room.enter("second", Haste.DUE))
        await let_others_run()
    second.cancel()  # it was given the place, and has not run since

    room.open()
    await room.enter("last", Haste.DUE)

    assert room.came == ["last"]


@in_virtual_time
async def test_a_place_is_not_given_to_who_has_just_been_cancelled() -> None:
    room = Room()
    async with room.places.place("first", Haste.DUE):
        second = asyncio.create_task(room.enter("second", Haste.DUE))
        await let_others_run()
        second.cancel()  # and has not run since

    room.open()
    await room.enter("last", Haste.DUE)

    assert room.came == ["last"]
