"""The turnstile: so many at once, so many a second, callers first, and no place is ever lost."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from broker.service.turnstile import BURST_SECONDS, SAVED_SECONDS, Priority, Turnstile
from support.service import seconds_gone
from support.virtual_time import in_virtual_time, pass_time, stand_still

MOST = 56
"""In one second at 50: a tenth more, and one."""

FAST = 1_000_000.0
"""A rate that is no limit."""


class Crowd:
    """Those who want to go through, and what became of them."""

    def __init__(self, turnstile: Turnstile, tasks: asyncio.TaskGroup) -> None:
        self.came: list[str] = []
        self.at: list[float] = []
        self.most_inside = 0
        self._turnstile = turnstile
        self._tasks = tasks
        self._sent: dict[str, asyncio.Task[None]] = {}
        self._inside: dict[str, asyncio.Event] = {}

    def send(self, name: str, priority: Priority = Priority.CALLER) -> None:
        """Sends somebody, who stays inside until told to leave."""
        self._sent[name] = self._tasks.create_task(self._go(name, priority), name=name)

    def cancel(self, name: str) -> None:
        """Ends somebody's task, wherever it is."""
        self._sent[name].cancel()

    def leave(self, name: str) -> None:
        """Tells somebody to leave."""
        self._inside[name].set()

    def leave_all(self) -> None:
        """Tells everybody who is inside to leave."""
        for leaves in self._inside.values():
            leaves.set()

    async def _go(self, name: str, priority: Priority) -> None:
        async with self._turnstile.turn(priority):
            leaves = self._inside[name] = asyncio.Event()
            self.came.append(name)
            self.at.append(seconds_gone())
            self.most_inside = max(self.most_inside, len(self._inside))
            try:
                await leaves.wait()
            finally:
                del self._inside[name]


async def all_through(turnstile: Turnstile, count: int) -> list[float]:
    """Lets so many go through who stay for no time; returns when each did."""

    async def go() -> float:
        async with turnstile.turn():
            return seconds_gone()

    return sorted(await asyncio.gather(*(go() for _ in range(count))))


async def two_waiting(tasks: asyncio.TaskGroup) -> Crowd:
    """Lets "inside" take the only place, while "gone" waits, and "next" behind."""
    crowd = Crowd(Turnstile(most_at_once=1, rate=lambda: FAST), tasks)
    crowd.send("inside")
    await pass_time(1)
    crowd.send("gone")
    crowd.send("next")
    await pass_time(1)
    return crowd


@in_virtual_time
async def test_no_more_are_inside_than_may_be() -> None:
    async with asyncio.TaskGroup() as tasks:
        turnstile = Turnstile(most_at_once=3, rate=lambda: FAST)
        crowd = Crowd(turnstile, tasks)
        for number in range(10):
            crowd.send(str(number))
        while len(crowd.came) < 10:
            await pass_time(1)
            crowd.leave_all()

        assert crowd.most_inside == 3
        assert crowd.came == [str(number) for number in range(10)]
        await pass_time(1)
        crowd.leave_all()


@in_virtual_time
async def test_everybody_goes_at_the_rate_and_not_faster() -> None:
    turnstile = Turnstile(most_at_once=1000, rate=lambda: 50.0)

    at = await all_through(turnstile, 501)

    for first, last in zip(at, at[50:], strict=False):
        assert last - first >= 1 - BURST_SECONDS - 1e-6
    assert at[-1] == pytest.approx(10, abs=0.2)


@in_virtual_time
async def test_a_pause_is_not_saved_up_but_for_a_burst() -> None:
    turnstile = Turnstile(most_at_once=1000, rate=lambda: 50.0)
    await all_through(turnstile, 1)
    await pass_time(3600)

    at = await all_through(turnstile, 100)

    at_once = sum(when == 3600 for when in at)
    assert at_once == 50 * BURST_SECONDS + 1
    assert at[-1] - 3600 == pytest.approx(2 - BURST_SECONDS, abs=0.05)


@in_virtual_time
async def test_what_stalls_took_is_made_up_for_and_no_second_sees_more() -> None:
    turnstile = Turnstile(most_at_once=1000, rate=lambda: 50.0)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(all_through(turnstile, 1000))
        for stall in (0.3, 0.2, 0.4, 0.1, 0.3) * 4:
            await pass_time(1 - stall)
            stand_still(stall)

        at = await waiting

    assert at[-1] == pytest.approx(20, abs=0.5)
    assert min(last - first for first, last in zip(at, at[MOST:], strict=False)) >= 1


@in_virtual_time
async def test_of_a_long_stall_a_second_is_made_up_for() -> None:
    turnstile = Turnstile(most_at_once=1000, rate=lambda: 50.0)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(all_through(turnstile, 1000))
        await pass_time(1)
        stand_still(3600)

        at = await waiting

    assert at[-1] - 3601 == pytest.approx(19 - SAVED_SECONDS, abs=0.1)
    assert min(last - first for first, last in zip(at, at[MOST:], strict=False)) >= 1


@pytest.mark.parametrize("rate", [0.4, 1.0, 1.9, 5.0, 16.7, 333.3])
@in_virtual_time
async def test_a_second_sees_a_tenth_and_one_more_at_most(rate: float) -> None:
    turnstile = Turnstile(most_at_once=1000, rate=lambda: rate)
    count = int(4 * rate) + 2
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(all_through(turnstile, count))
        await pass_time(0.95)
        stand_still(0.75)

        at = await waiting

    most = rate * (1 + BURST_SECONDS) + 1
    assert all(sum(first <= when < first + 1 for when in at) <= most for first in at)
    assert at[-1] <= count / rate + 0.5


@in_virtual_time
async def test_callers_go_before_planned_work() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = Crowd(Turnstile(most_at_once=1, rate=lambda: FAST), tasks)
        for name, priority in (
            ("inside", Priority.PLANNED),
            ("planned", Priority.PLANNED),
            ("caller", Priority.CALLER),
            ("another", Priority.CALLER),
        ):
            crowd.send(name, priority)
        for _ in range(4):
            await pass_time(1)
            crowd.leave_all()

        assert crowd.came == ["inside", "caller", "another", "planned"]


@in_virtual_time
async def test_a_rate_that_rises_holds_nobody_up_for_long() -> None:
    rates = [1.0]
    turnstile = Turnstile(most_at_once=1000, rate=lambda: rates[0])
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(all_through(turnstile, 103))
        await pass_time(1.5)
        rates[0] = 100.0

        at = await waiting

    assert sum(when <= 1.5 for when in at) == 2
    assert at[-1] < 3.1


@in_virtual_time
async def test_a_rate_that_falls_counts_from_the_next_on() -> None:
    rates = [100.0]
    turnstile = Turnstile(most_at_once=1000, rate=lambda: rates[0])
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(all_through(turnstile, 20))
        await pass_time(0.095)
        rates[0] = 0.5

        at = await waiting

    slow = [when for when in at if when > 2]
    assert all(later - earlier == pytest.approx(2) for earlier, later in pairwise(slow))
    assert len(slow) >= 8


@in_virtual_time
async def test_who_leaves_the_queue_leaves_no_gap_in_it() -> None:
    async with asyncio.TaskGroup() as tasks:
        turnstile = Turnstile(most_at_once=1, rate=lambda: FAST)
        crowd = Crowd(turnstile, tasks)
        crowd.send("inside")
        await pass_time(1)
        crowd.send("gone")
        crowd.send("next")
        await pass_time(1)

        crowd.cancel("gone")
        await pass_time(1)
        waited = turnstile.waiting
        crowd.leave("inside")
        await pass_time(1)

        assert (waited, crowd.came) == (1, ["inside", "next"])
        crowd.leave_all()


@in_virtual_time
async def test_who_goes_as_a_place_becomes_free_takes_it_not_along() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = await two_waiting(tasks)

        # Whoever is inside leaves first in the same turn of the loop, whatever the order.
        crowd.cancel("inside")
        crowd.cancel("gone")
        await pass_time(1)

        assert crowd.came == ["inside", "next"]
        crowd.leave_all()


@in_virtual_time
async def test_who_is_let_in_and_goes_before_hearing_of_it_gives_the_place_back() -> None:
    async with asyncio.TaskGroup() as tasks:
        crowd = await two_waiting(tasks)

        crowd.leave("inside")
        await asyncio.sleep(0)  # the one inside runs, and lets the next one in
        crowd.cancel("gone")
        await pass_time(1)

        assert crowd.came == ["inside", "next"]
        crowd.leave_all()


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("victim", ["inside", "first", "second"])
@in_virtual_time
async def test_cancelled_at_any_moment_nobody_takes_a_place_along(victim: str, turns: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        turnstile = Turnstile(most_at_once=1, rate=lambda: FAST)
        crowd = Crowd(turnstile, tasks)
        for name in ("inside", "first", "second"):
            crowd.send(name)
        await pass_time(1)
        crowd.leave("inside")
        for _ in range(turns):
            await asyncio.sleep(0)

        crowd.cancel(victim)
        for _ in range(4):
            await pass_time(1)
            crowd.leave_all()

        through = await all_through(turnstile, 5)
        assert (len(through), turnstile.waiting) == (5, 0)


@in_virtual_time
async def test_a_waiter_that_waits_for_the_rate_may_go_too() -> None:
    turnstile = Turnstile(most_at_once=5, rate=lambda: 1.0)
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(all_through(turnstile, 1)) for _ in range(4)]
        await pass_time(0.5)
        for task in waiting[1:3]:
            task.cancel()

        at = [await task for task in (waiting[0], waiting[3])]

    assert [when for (when,) in at] == [0.0, pytest.approx(1, abs=BURST_SECONDS)]
