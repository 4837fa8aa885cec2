"""What one watcher is still to be told: of each tenant the latest state, and nothing twice.

However slowly it reads, no more waits for it than one state a tenant: a state that was overtaken
before it was told is never told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Hashable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from broker.domain.errors import BrokerError
from broker.service.messages import ServedToken

State: TypeAlias = ServedToken | BrokerError
"""A token, or why there is none."""

_NONE = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a tenant stands."""

    tenant: str
    state: State
    at: float
    """When it was found out, on the event loop's clock."""

    def aged(self, now: float) -> Told:
        """Returns it for a reader who comes now: spans count from the answer (`reuse_for`)."""
        state = self.state
        if isinstance(state, BrokerError):
            return self
        age = timedelta(seconds=now - self.at)
        younger = replace(
            state,
            expires_in=max(state.expires_in - age, _NONE),
            reuse_for=max(state.reuse_for - age, _NONE),
        )
        return replace(self, state=younger, at=now)


class Watch:
    """One watcher. `Watching` tells it, whoever serves the watcher reads `changes`."""

    def __init__(self) -> None:
        """Nothing is watched yet."""
        # What was told last of each tenant that is watched; None: nothing yet.
        self._known: dict[str, Hashable | None] = {}
        self._pending: dict[str, Told] = {}
        self._woken = asyncio.Event()
        self.failure: Exception | None = None
        """What `changes` has ended for, if it was to end badly."""

        self._is_ended = False

    @property
    def tenants(self) -> Collection[str]:
        """Which tenants are watched."""
        return tuple(self._known)

    def __contains__(self, tenant: str) -> bool:
        """Whether a tenant is watched."""
        return tenant in self._known

    def __len__(self) -> int:
        """How many tenants are watched."""
        return len(self._known)

    @property
    def untold(self) -> int:
        """How many states wait to be told, also of tenants that are not watched."""
        return len(self._pending)

    def expect(self, tenant: str) -> None:
        """Watches a tenant: its state is to be told, whether it was before or not."""
        self._known[tenant] = None

    def forget(self, tenant: str) -> None:
        """Watches a tenant no more; what is not told yet stays untold."""
        del self._known[tenant]
        self._pending.pop(tenant, None)

    def tell(self, tenant: str, state: State) -> None:
        """Takes a state, unless it is what the watcher knows."""
        # One that was overtaken before it was told makes place, also where nothing is new.
        self._pending.pop(tenant, None)
        if self._known.get(tenant) == _gist(state):
            return
        at = asyncio.get_running_loop().time()
        self._pending[tenant] = Told(tenant=tenant, state=state, at=at)
        self._woken.set()

    def end(self) -> None:
        """Has `changes` end; what is pending is not told any more."""
        self._is_ended = True
        self._woken.set()

    def fail(self, error: Exception) -> None:
        """Has `changes` end, and says why."""
        self.failure = error
        self.end()

    async def changes(self, *, silence: float) -> AsyncGenerator[Told | None, None]:
        """Yields each change as it comes, and None after so many seconds without one."""
        await self._wait(silence)
        while not self._is_ended:
            yield self._next()
            await self._wait(silence)

    async def _wait(self, seconds: float) -> None:
        if self._pending or self._is_ended:
            return
        self._woken.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass  # a sign of life is due

    def _next(self) -> Told | None:
        if not self._pending:
            return None
        told = self._pending.pop(next(iter(self._pending)))
        if told.tenant in self._known:
            self._known[told.tenant] = _gist(told.state)
        return told.aged(asyncio.get_running_loop().time())


def _gist(state: State) -> Hashable:
    """Returns what makes a state another one; the time that is left does not."""
    if isinstance(state, BrokerError):
        return (state.reason, *sorted(state.metadata.items()))
    return (state.generation, state.is_degraded)
