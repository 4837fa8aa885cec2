"""The one way to Redis: bounded in time, paused after failures, with one error of its own.

Connections are opened when something is asked. Retries nothing: a `SET NX` whose answer was lost
would read as held by somebody else when it is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import AskError, ResponseError

from broker.domain.facts import LoopFailed
from broker.lease.address import make_pool
from broker.lease.circuit import Circuit
from broker.lease.failure import RedisUnreachable, heeding, name_failure
from broker.lease.sentinel import Master
from broker.lease.slot import SlotOwner
from broker.lease.times import LeaseTimes
from broker.ports import Observer

Given = TypeVar("Given")

_DEFAULT_TIMES: Final = LeaseTimes()


class RedisClient:
    """A Redis at an address. An async context manager, which closes every connection at its end.

    `read_url` is called when this is made, and again for user and password whenever a connection is
    opened; another address needs a restart. Failures are told to `observer` as `LoopFailed`, by
    the names of their classes.

    Raises:
        RedisUrlRefused: the address cannot be used.
    """

    def __init__(
        self,
        read_url: Callable[[], str],
        *,
        ca_file: Path | None = None,
        times: LeaseTimes = _DEFAULT_TIMES,
        observer: Observer | None = None,
    ) -> None:
        self.times = times
        self._redis = Redis.from_pool(make_pool(read_url, ca_file=ca_file, times=times))
        asked = self._redis.connection_pool.connection_kwargs.get("connection_pool")
        self._asked = asked if isinstance(asked, Master | SlotOwner) else None
        self._circuit = Circuit(times.pause)
        self._observer = observer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(Exception):  # a peer that is gone says no good-bye; see `attempt`
            await self._redis.aclose()
        if self._asked is not None:
            await self._asked.aclose()

    @property
    def is_for_cluster(self) -> bool:
        """Whether the address names nodes of a Redis Cluster."""
        return isinstance(self._asked, SlotOwner)

    async def ask(self, question: Callable[[Redis], Awaitable[Given]]) -> Given:
        """Asks Redis, unless it failed a moment ago. Takes at most both timeouts, once each.

        Safe to cancel; what was asked may have been done.

        Raises:
            RedisUnreachable: not done, or not known to be.
        """
        with self._circuit.asking() as is_probe:
            if is_probe:
                await self._drop_idle_connections()
            return await self.ask_anyway(question)

    async def ask_anyway(self, question: Callable[[Redis], Awaitable[Given]]) -> Given:
        """As `ask`, also during a pause, of which it neither knows nor learns."""
        return await self.attempt(
            question(self._redis), within=self.times.connect + self.times.answer, what="redis"
        )

    async def attempt(self, deed: Awaitable[Given], *, within: timedelta, what: str) -> Given:
        """Awaits something of redis-py's; `what` names it to the observer.

        Raises:
            RedisUnreachable: it failed or took too long.
        """
        try:
            async with asyncio.timeout(within.total_seconds()):
                return await heeding(deed)
        # Broad because of law 6: a connection that breaks comes as AttributeError, RuntimeError and
        # ValueError too, from the parser, from uvloop, from a concurrent close.
        except Exception as error:
            self.report(what, name_failure(error))
            if isinstance(error, AskError):
                await self._drop_idle_connections()  # our slot has gone elsewhere
            raise RedisUnreachable(
                name_failure(error), has_answered=isinstance(error, ResponseError)
            ) from error

    def pause(self) -> None:
        """Asks nothing for a while."""
        self._circuit.open()

    def report(self, what: str, error: str) -> None:
        """Tells the observer of a failure, which is got over here."""
        if self._observer is not None:
            self._observer.observe(LoopFailed(loop=what, error=error))

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[PubSub]:
        """Gives a connection of its own for pub/sub, not yet opened; closes it after the block."""
        pubsub = self._redis.pubsub()
        close: Callable[[], Awaitable[None]] = pubsub.aclose  # redis-py gives it no type
        try:
            yield pubsub
        finally:
            with suppress(Exception):  # broken already, in any of the ways that `attempt` names
                await close()

    async def _drop_idle_connections(self) -> None:
        """Closes what an outage has left: half-open ones would fail one by one, with a pause each.

        Nobody else uses the pool now: all but the probe are refused. In a cluster whose slots move
        others may, and meet a broken connection instead of the wrong one.
        """
        with suppress(Exception):  # they are gone either way; see `attempt`
            await heeding(self._redis.connection_pool.disconnect(inuse_connections=False))
