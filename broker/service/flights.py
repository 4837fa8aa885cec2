"""One piece of work for everybody who asks for the same thing at the same time (law 8).

A flight is a task of the app, never of a caller: a caller's deadline or cancellation changes
nothing for another, nor for a refresh that was sent. The key holds everything that changes the
answer. A flight that nobody waits for any more still ends as it would have, and a defect in it is
told all the same: once, by the id that its callers get.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Awaitable, Callable, Hashable, Iterator
from datetime import timedelta
from typing import Generic, TypeVar

from broker.domain.errors import BrokerError, InternalError, RefreshInProgress
from broker.domain.facts import DefectMet, FlightEnded, FlightJoined, FlightStarted
from broker.ports import Chance, Observer

T = TypeVar("T")


class Flight(Generic[T]):
    """Work under way, with a landing that everybody waits for."""

    def __init__(self, tenant: str, number: int) -> None:
        """Starts the clock. `number`: no other flight of these has it."""
        loop = asyncio.get_running_loop()
        self.tenant = tenant
        self.number = number
        self.waiters = 0
        self.overdue: asyncio.Future[None] = loop.create_future()
        """Done when the provider has taken longer than a whole request may take."""
        self.landing: asyncio.Future[T] = loop.create_future()
        self._started_at = loop.time()

    def land(self, value: T) -> None:
        """Gives everybody the answer. The flight's task may go on tidying up."""
        if not self.landing.done():
            self.landing.set_result(value)

    def fail(self, error: BrokerError) -> None:
        """Gives everybody an error."""
        if not self.landing.done():
            self.landing.set_exception(error)
            # Read here once, or a flight whose callers have all left would be called a leak.
            self.landing.exception()

    def told(self) -> FlightEnded:
        """Returns how it ended, for observers."""
        elapsed = asyncio.get_running_loop().time() - self._started_at
        error = self.landing.exception()
        return FlightEnded(
            tenant=self.tenant,
            flight=self.number,
            waiters=self.waiters,
            duration=timedelta(seconds=elapsed),
            reason=error.reason if isinstance(error, BrokerError) else "",
        )

    async def landed(self, seconds: float) -> bool:
        """Waits for the landing, at most so long; says whether it came. Safe to cancel."""
        await asyncio.wait({self.landing}, timeout=max(seconds, 0.0))
        return self.landing.done()

    async def landed_or_overdue(self, seconds: float) -> bool:
        """Waits for the landing or for the provider being overdue; says whether it has landed."""
        ends: list[asyncio.Future[T] | asyncio.Future[None]] = [self.landing, self.overdue]
        await asyncio.wait(ends, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED)
        return self.landing.done()


class Flights(Generic[T]):
    """The flights of this process, one a key."""

    def __init__(
        self,
        task_group: asyncio.TaskGroup,
        observer: Observer,
        *,
        chance: Chance,
        numbers: Iterator[int] | None = None,
    ) -> None:
        """`task_group`: the app's; a flight lives as long as it needs, whoever called.

        `numbers`: shared by all that tell one observer, so that it can tell flights apart.
        """
        self._task_group = task_group
        self._observer = observer
        self._chance = chance
        self._flights: dict[Hashable, Flight[T]] = {}
        self._under_way = 0
        self._numbers = numbers or itertools.count(1)
        self._running: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """How many are under way, those included that have landed and are tidying up."""
        return self._under_way

    def join(
        self, key: Hashable, tenant: str, work: Callable[[Flight[T]], Awaitable[T]]
    ) -> Flight[T]:
        """Returns the flight of this key; the first caller starts it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._start(key, tenant, work)
        else:
            self._observer.observe(FlightJoined(tenant=tenant, flight=flight.number))
        flight.waiters += 1
        return flight

    def find(self, key: Hashable) -> Flight[T] | None:
        """Returns the flight of this key, if there is one that has not landed."""
        return self._flights.get(key)

    async def settled(self) -> None:
        """Waits until none is under way."""
        while self._under_way:  # one may have started since the event was set
            await self._idle.wait()

    def abandon(self) -> None:
        """Cancels those under way; only for shutdown, when they hold nothing any more."""
        for task in self._running:
            task.cancel()

    def _start(
        self, key: Hashable, tenant: str, work: Callable[[Flight[T]], Awaitable[T]]
    ) -> Flight[T]:
        flight = Flight[T](tenant, next(self._numbers))
        self._flights[key] = flight
        # When it has landed it is out of the way: who comes now wants a newer answer.
        flight.landing.add_done_callback(lambda _: self._flights.pop(key, None))
        self._under_way += 1
        self._idle.clear()
        # What an observer leaves in the context goes with the flight, and not with its caller.
        context = contextvars.copy_context()
        context.run(self._observer.observe, FlightStarted(tenant=tenant, flight=flight.number))
        task = self._task_group.create_task(
            self._fly(flight, work), name=f"flight {tenant}", context=context
        )
        # Not at the end of the task: one that is cancelled before its first step has none.
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: self._end(flight))
        return flight

    async def _fly(self, flight: Flight[T], work: Callable[[Flight[T]], Awaitable[T]]) -> None:
        try:
            flight.land(await work(flight))
        except BrokerError as error:
            flight.fail(error)
        except Exception as error:  # noqa: BLE001 - a raise would end the app and all other flights
            flight.fail(self._defect(flight, error))

    def _defect(self, flight: Flight[T], error: Exception) -> InternalError:
        """Tells of what no rule foresaw. At the edge nobody may be left to, or all would."""
        defect_id, where = self._chance.identifier(), f"flight of {flight.tenant}"
        self._observer.observe(DefectMet(defect_id=defect_id, where=where, error=error))
        return InternalError(defect_id=defect_id, tenant=flight.tenant)

    def _end(self, flight: Flight[T]) -> None:
        # Only a task that was cancelled has not landed.
        flight.fail(RefreshInProgress("the broker is stopping", tenant=flight.tenant))
        self._observer.observe(flight.told())
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()
