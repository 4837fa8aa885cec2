"""Planned work: rotates what is in use ahead of its expiry, and what is idle before it dies.

Callers go first: each renewal waits for its turn behind them, and then flies as theirs do, so that
who asks meanwhile shares it. How fast it goes is the fleet's rate; after an outage what is overdue
comes at that rate, the longest overdue first, and not all at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from broker.domain.errors import BrokerError
from broker.domain.facts import LoopFailed, RenewalEnded
from broker.domain.renewal import Planned
from broker.ports import Due, Observer, Renewals
from broker.service.fleet import Fleet
from broker.service.turnstile import Priority, Turnstile

TURN_SECONDS: Final = 1.0
"""Between looks at what is due: little against the lead of a renewal, and a cheap query."""

AHEAD_SECONDS: Final = 2.0
"""So many seconds of work are taken at a time: long enough that no place stands empty while the
next are looked for, and short enough that what is taken is done well before others may take it."""

FEWEST: Final = 4
"""Taken at a time, at however low a rate: a slow answer must not stop the others."""


class Renewing:
    """Renews while `run` runs."""

    def __init__(
        self,
        renewals: Renewals,
        renew: Callable[[str], Awaitable[object]],
        observer: Observer,
        *,
        fleet: Fleet,
        turnstile: Turnstile,
    ) -> None:
        """`renew` gets a tenant's token fresh, for somebody who has a place at the turnstile."""
        self._renewals = renewals
        self._renew = renew
        self._observer = observer
        self._fleet = fleet
        self._turnstile = turnstile
        self._under_way = 0
        self._freed = asyncio.Event()
        self._is_stopping = False

    def stop(self) -> None:
        """Begins nothing any more."""
        self._is_stopping = True

    async def run(self) -> None:
        """Renews until it is cancelled; what was sent goes on all the same (law 8)."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                most = max(FEWEST, int(self._turnstile.rate * AHEAD_SECONDS))
                due = await self._due(most - self._under_way)
                for each in due:
                    self._under_way += 1
                    task = tasks.create_task(self._one(each), name=f"renewal of {each.tenant}")
                    # Not in the task: one that is cancelled before its first step has no end.
                    task.add_done_callback(self._ended)
                if self._under_way >= most:
                    await self._half_done(most)
                else:
                    await asyncio.sleep(TURN_SECONDS)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._under_way -= 1
        self._freed.set()

    async def _half_done(self, most: int) -> None:
        while self._under_way > most // 2:
            self._freed.clear()
            await self._freed.wait()

    async def _due(self, limit: int) -> Sequence[Due]:
        """Returns what this replica has taken: first what is in use."""
        # While the breaker is open one refresh at a time is sent, and a caller's tells as much.
        if limit <= 0 or self._is_stopping or self._fleet.breaker is not None:
            return ()
        try:
            in_use = await self._renewals.take(Planned.IN_USE, limit=limit)
            # What the guard holds back grows with each refusal. What is in use is shown within
            # minutes anyway, when its callers ask; what is idle has days.
            if len(in_use) >= limit or self._fleet.is_holding():
                return in_use
            idle = await self._renewals.take(Planned.IDLE, limit=limit - len(in_use))
        except BrokerError as error:
            self._observer.observe(LoopFailed(loop="renewals", error=error.reason))
            return ()
        return (*in_use, *idle)

    async def _one(self, due: Due) -> None:
        reason = ""
        try:
            async with self._turnstile.turn(Priority.PLANNED):
                await self._renew(due.tenant)
        except BrokerError as error:
            reason = error.reason
        self._observer.observe(
            RenewalEnded(tenant=due.tenant, overdue_for=due.delay, reason=reason)
        )
