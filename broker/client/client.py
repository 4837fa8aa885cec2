"""TokenClient: one line for a service that calls Pleo. See the package for how to use it.

Of the event loop that it is entered on, and of the process: from elsewhere it raises RuntimeError
rather than hang, except for what is in the cache. After a fork nothing is.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from broker.client.cache import Cache
from broker.client.calls import GrpcCalls
from broker.client.channel import open_channel
from broker.client.credentials import Credentials
from broker.client.obtaining import Obtaining
from broker.client.ports import Calls
from broker.client.values import AccessToken
from broker.client.watching import Watcher

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds for a call without one: a refresh usually takes one, and Pleo is given ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    loop: asyncio.AbstractEventLoop
    pid: int
    obtaining: Obtaining

    def check(self) -> None:
        if os.getpid() != self.pid:
            raise RuntimeError("this client was made before a fork: make one in the child process")
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError("this client belongs to another event loop: make one for each")


class TokenClient:
    """Access tokens of any number of tenants, from memory where the broker's promise allows."""

    def __init__(
        self,
        address: str,
        *,
        credentials: Credentials | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        watch: bool = False,
        calls: Calls | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects to nothing yet.

        `address`: as gRPC has it: `host:port`, `dns:///name:port` for all replicas behind a name,
        `unix:/path`. `timeout`: in seconds, for calls that name none. `watch`: follow what happens
        to the tenants in use. `calls` and `clock`: for tests.

        Raises:
            ValueError: tokens would be shown to the network.
        """
        self._address = address
        self._credentials = credentials or Credentials()
        self._credentials.check(address)
        self._timeout = timeout
        self._is_watching = watch
        self._calls = calls
        self._clock = clock
        self._cache = Cache()
        self._kept = self._cache.kept
        self._running: _Running | None = None
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        """Where it asks, and how much it keeps."""
        return f"<TokenClient {self._address}: {len(self._kept)} tokens>"

    async def __aenter__(self) -> Self:
        """Opens the channel, which connects when it is used."""
        async with AsyncExitStack() as stack:
            calls = self._calls or await self._open_calls(stack)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            watcher = Watcher(calls, self._cache, told=self._told, clock=self._clock)
            obtaining = Obtaining(
                calls,
                self._cache,
                tasks=tasks,
                in_use=watcher.use if self._is_watching else _nothing,
                is_told=watcher.tells_of,
                clock=self._clock,
            )
            stack.callback(obtaining.end)
            if self._is_watching:
                task = tasks.create_task(watcher.run(), name="watches tokens")
                stack.callback(task.cancel)
            loop = asyncio.get_running_loop()
            self._running = _Running(loop=loop, pid=os.getpid(), obtaining=obtaining)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends what is under way, closes the channel, and forgets all tokens."""
        self._running = None
        self._cache.clear()
        await self._stack.aclose()

    async def get(self, tenant: str, *, timeout: float | None = None) -> AccessToken:  # noqa: ASYNC109 - the call's deadline, which the broker is told
        """Returns an access token of a tenant, from memory within its lease.

        `timeout`: in seconds, for asking the broker.

        Raises:
            ReauthRequired: the customer must consent again.
            BrokerUnreachable: no broker answered in time.
            TokenBrokerError: any other reason, each as its own class.
        """
        kept = self._kept.get(tenant)
        if kept is not None and self._clock() < kept.reuse_until:
            kept.is_used = True
            return kept.token
        return await self._ask(tenant, rejected=0, timeout=timeout)

    def cached(self, tenant: str) -> AccessToken | None:
        """Returns the token that may be used without asking. Safe from any thread."""
        kept = self._kept.get(tenant)
        if kept is None or self._clock() >= kept.reuse_until:
            return None
        kept.is_used = True
        return kept.token

    async def report_rejected(
        self,
        tenant: str,
        generation: int,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as of `get`
    ) -> AccessToken:
        """Says that Pleo answered 401 to the token of a generation, and returns the tenant's token.

        Where it is of a newer generation, try once more with it. Where it is the same, the token
        lives at Pleo and the 401 is about something else, or the broker has rotated for a report
        moments ago: show the 401.

        Raises:
            TokenBrokerError: as `get`.
        """
        kept = self._cache.fresh(tenant, now=self._clock())
        if kept is not None and kept.token.generation > generation:
            return kept.token
        self._cache.drop(tenant)
        return await self._ask(tenant, rejected=generation, timeout=timeout)

    async def _ask(self, tenant: str, *, rejected: int, timeout: float | None) -> AccessToken:  # noqa: ASYNC109 - as of `get`
        if self._running is None:
            raise RuntimeError("this client is not open: use `async with TokenClient(…) as client`")
        self._running.check()
        seconds = self._timeout if timeout is None else timeout
        return await self._running.obtaining.get(tenant, rejected=rejected, seconds=seconds)

    def _told(self, tenant: str, has_ended: bool) -> None:  # noqa: FBT001 - a callback's
        if self._running is not None:
            self._running.obtaining.told(tenant, has_ended=has_ended)

    async def _open_calls(self, stack: AsyncExitStack) -> Calls:
        channel = await stack.enter_async_context(open_channel(self._address, self._credentials))
        return GrpcCalls(channel, self._credentials)


def _nothing(tenant: str) -> None:
    """Without a watch nobody wants to know."""
