"""One stream that tells of the tenants in use: what ends early ends here at once.

The stream adds to what a call answers and is never waited for: while there is none, tokens are used
for their leases, and asked for as without it. A tenant is watched from its first token on, and left
where it has none any more, or where nobody used a whole generation: a subscription counts as use,
and would have an idle tenant rotated for ever.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from itertools import islice
from typing import Final

from broker.client.cache import Cache
from broker.client.errors import TokenBrokerError
from broker.client.ports import Calls
from broker.client.reading import error_of_status
from broker.v1.token_service_pb2 import WatchAccessTokensRequest, WatchAccessTokensResponse

SILENCE_SECONDS: Final = 45.0
"""Without a sign of life the stream is dead: one and a half of the promised 30."""

MOST_TENANTS: Final = 10_000
"""In one stream (the broker's bound). Those beyond are asked for as without a stream."""

_IN_ONE_MESSAGE: Final = 1000

_SHORTEST_SECONDS: Final = 0.25
"""Before a new stream: spreads the callers of a replica that goes, and is soon enough."""

_LONGEST_SECONDS: Final = 10.0
"""Before a new stream, where none can be had: a broker that is back is noticed."""

_Stream = AsyncGenerator[WatchAccessTokensResponse, None]


def any_fraction() -> float:
    """Returns a number in [0, 1)."""
    return secrets.randbits(32) / (1 << 32)


class Watcher:
    """The watch of one client."""

    def __init__(
        self,
        calls: Calls,
        cache: Cache,
        *,
        told: Callable[[str, bool], None],
        clock: Callable[[], float] = time.monotonic,
        fraction: Callable[[], float] = any_fraction,
    ) -> None:
        """`told`: is given each tenant that there is news of, and whether it has ended."""
        self._calls = calls
        self._cache = cache
        self._told = told
        self._clock = clock
        self._fraction = fraction
        self._watched: dict[str, None] = {}
        # By the stream that there is.
        self._told_of: set[str] = set()
        # What the stream is still to be told, True to subscribe: the last word counts.
        self._unsaid: dict[str, bool] = {}
        self._changed = asyncio.Event()

    def use(self, tenant: str) -> None:
        """Watches a tenant, unless it is watched or there are too many."""
        if tenant not in self._watched and len(self._watched) < MOST_TENANTS:
            self._watched[tenant] = None
            self._say(tenant, is_watched=True)

    def tells_of(self, tenant: str) -> bool:
        """Whether the stream that there is has told of a tenant, and so will tell of the next."""
        return tenant in self._told_of

    def leave(self, tenant: str) -> None:
        """Watches a tenant no more."""
        self._told_of.discard(tenant)
        if tenant in self._watched:
            del self._watched[tenant]
            self._say(tenant, is_watched=False)

    async def run(self) -> None:
        """Watches until it is cancelled."""
        failures = 0
        while True:
            while not self._watched:
                self._changed.clear()
                await self._changed.wait()
            failures = 0 if await self._follow() else failures + 1
            longest = min(_SHORTEST_SECONDS * 2 ** min(failures, 10), _LONGEST_SECONDS)
            await asyncio.sleep(longest * (1 + self._fraction()) / 2)

    async def _follow(self) -> bool:
        """Follows one stream to its end, and says whether it told anything."""
        has_told = False
        self._unsaid = dict.fromkeys(self._watched, True)
        try:
            # The requests are read by the stream, and end with it.
            async with aclosing(self._calls.watch(self._requests())) as stream:
                while (told := await _next(stream)) is not None:
                    has_told = True
                    self._heed(told)
        except (TokenBrokerError, TimeoutError):
            # Why is no matter: whoever asks for a token is told what is wrong.
            return has_told
        finally:
            self._told_of.clear()
        return has_told

    async def _requests(self) -> AsyncGenerator[WatchAccessTokensRequest, None]:
        while True:
            self._changed.clear()
            unsaid, self._unsaid = self._unsaid, {}
            for request in _requests_for(unsaid):
                yield request
            await self._changed.wait()

    def _heed(self, told: WatchAccessTokensResponse) -> None:
        tenant = told.tenant
        if told.HasField("token"):
            known = self._cache.kept.get(tenant)
            is_new = known is not None and told.token.generation > known.token.generation
            if known is not None and is_new and not known.is_used:
                self.leave(tenant)
            now = self._clock()
            self._cache.take(tenant, told.token, asked_at=now, answered_at=now, is_used=False)
            if tenant in self._watched:
                self._told_of.add(tenant)
            self._told(tenant, False)  # noqa: FBT003 - a callback's
        elif told.HasField("status"):
            error = error_of_status(told.status)
            self._cache.heed(tenant, error, now=self._clock())
            if error.retry_after is None:
                self._told(tenant, True)  # noqa: FBT003 - a callback's
                self.leave(tenant)

    def _say(self, tenant: str, *, is_watched: bool) -> None:
        self._unsaid[tenant] = is_watched
        self._changed.set()


async def _next(stream: _Stream) -> WatchAccessTokensResponse | None:
    """Returns what is told next; None: the stream is over.

    Raises:
        TimeoutError: it is silent.
    """
    async with asyncio.timeout(SILENCE_SECONDS):
        return await anext(stream, None)


def _requests_for(unsaid: dict[str, bool]) -> Iterator[WatchAccessTokensRequest]:
    for tenants in _portions(each for each, is_watched in unsaid.items() if is_watched):
        subscribe = WatchAccessTokensRequest.Subscribe(tenants=tenants)
        yield WatchAccessTokensRequest(subscribe=subscribe)
    for tenants in _portions(each for each, is_watched in unsaid.items() if not is_watched):
        unsubscribe = WatchAccessTokensRequest.Unsubscribe(tenants=tenants)
        yield WatchAccessTokensRequest(unsubscribe=unsubscribe)


def _portions(tenants: Iterator[str]) -> Iterator[list[str]]:
    while portion := list(islice(tenants, _IN_ONE_MESSAGE)):
        yield portion
