"""Who goes to Pleo next: so many at once, so many a second, and callers before planned work.

A place is taken before the claim, so that the time in a queue is not taken from an attempt's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Final

BURST_SECONDS: Final = 0.1
"""Of the rate may go at once after a pause, and in any second beside the rate itself: enough not to
lose time to the loop's timers. Pleo's limits are unknown, and most count by the second: with a
second's worth of burst it would see twice what is set."""

SAVED_SECONDS: Final = 1.0
"""Of the rate are kept while somebody waits: what a stall of the loop took is made up for, as far
as no second sees more. A busy machine stalls for tenths of a second, and time after time. Much
longer would be as much as `BURST_SECONDS` above the rate for minutes, after each long stall."""


class Priority(IntEnum):
    """Who goes first."""

    CALLER = 0
    """Somebody waits for the token."""

    PLANNED = 1
    """Nobody does."""


class Turnstile:
    """Lets refreshes through, within this replica's limits."""

    def __init__(self, *, most_at_once: int, rate: Callable[[], float]) -> None:
        """`rate`: this replica's share, per second; asked at each one."""
        self._most_at_once = most_at_once
        self._rate = rate
        self._inside = 0
        self._queues: dict[Priority, deque[asyncio.Future[None]]] = {
            priority: deque() for priority in Priority
        }
        self._next_at = 0.0
        self._went: deque[float] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rate(self) -> float:
        """This replica's share of the rate, per second."""
        return self._rate()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues.values()))

    @asynccontextmanager
    async def turn(self, priority: Priority = Priority.CALLER) -> AsyncIterator[None]:
        """Waits for a place and keeps it while the block runs. Safe to cancel."""
        await self._enter(priority)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, priority: Priority) -> None:
        loop = asyncio.get_running_loop()
        if not self.waiting:
            # What nobody wanted is not saved up, but for a burst.
            self._next_at = max(self._next_at, loop.time() - BURST_SECONDS)
        place = loop.create_future()
        self._queues[priority].append(place)
        self._let_in()
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._leave()  # it was let in and did not hear of it
            elif place in self._queues[priority]:
                self._queues[priority].remove(place)
            raise

    def _leave(self) -> None:
        self._inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting and self._inside < self._most_at_once:
            rate, now = self._rate(), loop.time()
            if (open_at := self._open_at(rate)) > now:
                self._wake_at(open_at)
                return
            place = self._first()
            if place.cancelled():
                continue  # who waited for it has not run since, to take it out of the queue
            self._next_at = max(self._next_at, now - SAVED_SECONDS) + 1 / rate
            self._went.append(now)
            self._inside += 1
            place.set_result(None)

    def _open_at(self, rate: float) -> float:
        """Returns when the next may go: at the rate, and when the last second has room for it."""
        most = int(rate * (1 + BURST_SECONDS)) + 1
        while len(self._went) > most:
            self._went.popleft()
        return max(self._next_at, self._went[0] + 1 if len(self._went) == most else 0)

    def _first(self) -> asyncio.Future[None]:
        return next(queue for queue in self._queues.values() if queue).popleft()

    def _wake_at(self, when: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._let_in()
