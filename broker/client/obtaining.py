"""Asking the broker: one flight a tenant, shared by everybody who asks meanwhile.

A flight belongs to the client and not to a caller: one who leaves, or whose time is up, changes
nothing for the others. It has the deadline of the caller who started it; who joined with more
time starts the next one.

One that starts in the half second before a planned rotation waits for it, as the broker has callers
wait for a rotation: asked now, it would give the token that is about to die.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import grpc

from broker.client.cache import Cache
from broker.client.errors import TokenBrokerError
from broker.client.ports import Calls
from broker.client.reading import token_of, unreachable
from broker.client.values import AccessToken

_ROTATION_SECONDS: Final = 2.0
"""That a rotation is given to be told of: the broker's own patience, after which it answers with
the old token."""


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

    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where the watch tells of the tenant."""

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
        is_told: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`in_use`: told of tenants that got a token. `is_told`: whether a watch tells of one."""
        self._calls = calls
        self._cache = cache
        self._tasks = tasks
        self._in_use = in_use
        self._is_told = is_told
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

    def told(self, tenant: str, *, has_ended: bool) -> None:
        """Takes news of a tenant. Where it has ended, nothing that is under way is kept."""
        flight = self._flights.get(tenant)
        if flight is not None:
            flight.is_overtaken = flight.is_overtaken or has_ended
            flight.news.set()

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
        try:
            token = await self._rotated(tenant, flight) or await self._asked(tenant, flight)
        except TokenBrokerError as error:
            self._cache.heed(tenant, error, now=self._clock())
            flight.fail(error)
        except Exception as error:  # noqa: BLE001 - a raise would end the client and all other flights
            flight.fail(error)
        else:
            flight.landing.set_result(token)

    async def _rotated(self, tenant: str, flight: _Flight) -> AccessToken | None:
        """Waits for a rotation that is about to begin; returns what a watch told of it."""
        kept, now = self._cache.kept.get(tenant), self._clock()
        if kept is None or flight.rejected:
            return None
        until = kept.renewed_at + (_ROTATION_SECONDS if self._is_told(tenant) else 0.0)
        # Half of its time is left for the call.
        seconds = min(until - now, (flight.deadline - now) / 2)
        if now >= until or seconds <= 0:
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await flight.news.wait()
        flight.is_overtaken = False  # nothing is under way yet
        fresh = self._cache.fresh(tenant, now=self._clock())
        if fresh is None:
            return None
        fresh.is_used = True
        return fresh.token

    async def _asked(self, tenant: str, flight: _Flight) -> AccessToken:
        asked_at = self._clock()
        answer = await self._calls.get(
            tenant, rejected=flight.rejected, seconds=max(flight.deadline - asked_at, 0.0)
        )
        if flight.is_overtaken:
            return token_of(answer)
        token = self._cache.take(
            tenant, answer, asked_at=asked_at, answered_at=self._clock(), is_used=True
        )
        self._in_use(tenant)
        return token

    def _end(self, tenant: str, flight: _Flight, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        del self._flights[tenant]
        # Only a task that was cancelled has not landed.
        flight.fail(unreachable(grpc.StatusCode.CANCELLED))


def _is_for_want_of_time(error: BaseException) -> bool:
    return isinstance(error, TokenBrokerError) and (
        error.code is grpc.StatusCode.DEADLINE_EXCEEDED or error.reason == "REFRESH_IN_PROGRESS"
    )
