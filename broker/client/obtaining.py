"""Asking the broker: one flight a tenant, shared by everybody who asks meanwhile.

A flight belongs to the client and not to a caller: one who leaves, or whose time is up, changes
nothing for the others. It has the deadline of the caller who started it; who joined with more
time starts the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from broker.client.cache import Cache
from broker.client.errors import TokenBrokerError
from broker.client.ports import Calls
from broker.client.reading import token_of, unreachable
from broker.client.values import AccessToken


@dataclass(slots=True, kw_only=True, eq=False)
class _Flight:
    rejected: int
    """The generation that it reports; 0: none."""

    deadline: float
    landing: asyncio.Future[AccessToken] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    is_overtaken: bool = False
    """The watch has told of the tenant's end since: what comes is for who waits, not to keep."""

    def fail(self, error: Exception) -> None:
        if not self.landing.done():
            self.landing.set_exception(error)
            # Read here once, or a flight whose callers have all left would be called a leak.
            self.landing.exception()


class Obtaining:
    """The flights of one client."""

    def __init__(
        self,
        calls: Calls,
        cache: Cache,
        *,
        tasks: asyncio.TaskGroup,
        in_use: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`in_use`: told of each tenant that got a token."""
        self._calls = calls
        self._cache = cache
        self._tasks = tasks
        self._in_use = in_use
        self._clock = clock
        self._flights: dict[str, _Flight] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def get(self, tenant: str, *, rejected: int, seconds: float) -> AccessToken:
        """Returns a token newer than what the cache may give. Safe to cancel.

        Raises:
            TokenBrokerError: there is none.
        """
        deadline = self._clock() + seconds
        while True:
            held = self._cache.held(tenant, now=self._clock())
            if held is not None:
                raise held
            flight = self._flights.get(tenant) or self._start(tenant, rejected, deadline)
            await asyncio.wait({flight.landing}, timeout=max(deadline - self._clock(), 0.0))
            if not flight.landing.done():
                raise unreachable(grpc.StatusCode.DEADLINE_EXCEEDED)
            if not self._leaves_more_to_do(flight, rejected, deadline):
                return flight.landing.result()

    def overtake(self, tenant: str) -> None:
        """Has what is under way for a tenant not be kept."""
        flight = self._flights.get(tenant)
        if flight is not None:
            flight.is_overtaken = True

    def end(self) -> None:
        """Ends all flights; who waits is told."""
        for task in self._running:
            task.cancel()

    def _leaves_more_to_do(self, flight: _Flight, rejected: int, deadline: float) -> bool:
        """Whether a flight's landing is no answer for this caller."""
        error = flight.landing.exception()
        if error is None:
            # One that began before the report knew nothing of it.
            return flight.rejected < rejected and flight.landing.result().generation <= rejected
        was_shorter = flight.deadline < deadline and self._clock() < deadline
        return was_shorter and _is_for_want_of_time(error)

    def _start(self, tenant: str, rejected: int, deadline: float) -> _Flight:
        flight = _Flight(rejected=rejected, deadline=deadline)
        self._flights[tenant] = flight
        task = self._tasks.create_task(self._fly(tenant, flight), name="asks for a token")
        # Not at the end of the task: one that is cancelled before its first step has none.
        self._running.add(task)
        task.add_done_callback(lambda ended: self._end(tenant, flight, ended))
        return flight

    async def _fly(self, tenant: str, flight: _Flight) -> None:
        asked_at = self._clock()
        try:
            answer = await self._calls.get(
                tenant, rejected=flight.rejected, seconds=max(flight.deadline - asked_at, 0.0)
            )
        except TokenBrokerError as error:
            self._cache.heed(tenant, error, now=self._clock())
            flight.fail(error)
        except Exception as error:  # noqa: BLE001 - a raise would end the client and all other flights
            flight.fail(error)
        else:
            if flight.is_overtaken:
                flight.landing.set_result(token_of(answer))
                return
            # From when it was asked for: the promise began later than that, and is not overstayed.
            token = self._cache.take(tenant, answer, since=asked_at, is_used=True)
            self._in_use(tenant)
            flight.landing.set_result(token)

    def _end(self, tenant: str, flight: _Flight, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        del self._flights[tenant]
        # Only a task that was cancelled has not landed.
        flight.fail(unreachable(grpc.StatusCode.CANCELLED))


def _is_for_want_of_time(error: BaseException) -> bool:
    return isinstance(error, TokenBrokerError) and (
        error.code is grpc.StatusCode.DEADLINE_EXCEEDED or error.reason == "REFRESH_IN_PROGRESS"
    )
