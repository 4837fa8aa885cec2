"""Leases as keys in Redis (port `Leases`). Upholds law 6: they decide nothing, and cost little.

A lease is redis-py's `Lock`: `SET NX PX` with a token of its own for each holder, and scripts that
compare it before they extend or delete. Redis may lose any of it at any time; the claim in
PostgreSQL decides.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockNotOwnedError

from broker.domain.facts import LeaseOutcome, LeaseStanding
from broker.lease.beside import running_beside
from broker.lease.client import RedisClient
from broker.lease.failure import RedisUnreachable
from broker.ports import LeaseSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unanswered:
    """A token with which a lease may have been taken: nobody said."""

    token: str
    until: float
    """On the event loop's clock; then the key is gone again."""


class RedisLeases:
    """Upholds `ports.Leases`. The key of a tenant is `prefix`, `lease:` and the tenant."""

    def __init__(self, client: RedisClient, *, prefix: str, replica: str = "") -> None:
        """`replica`: part of each token, so that people can see who holds a lease."""
        self._client = client
        self._replica = replica
        self._prefix = prefix
        self._unanswered: dict[str, _Unanswered] = {}  # by tenant, the oldest first

    @asynccontextmanager
    async def hold(self, tenant: str) -> AsyncIterator[LeaseOutcome]:
        """See `ports.Leases.hold`."""
        began = asyncio.get_running_loop().time()
        lock = await self._acquire(tenant)
        if isinstance(lock, LeaseOutcome):
            yield lock
            return
        try:
            async with running_beside(self._extend(lock, began), name=f"lease of {tenant}"):
                yield LeaseOutcome.ACQUIRED
        finally:
            with suppress(RedisUnreachable):  # it ends by itself, within its TTL
                await self._client.ask(lambda _: _owned(lock.release()))

    async def look(self, tenant: str) -> LeaseSeen:
        """See `ports.Leases.look`."""
        try:
            token, milliseconds = await self._client.ask(lambda redis: self._read(redis, tenant))
        except RedisUnreachable:
            return LeaseSeen(standing=LeaseStanding.UNREACHABLE)
        if token is None or milliseconds < 0:
            return LeaseSeen(standing=LeaseStanding.FREE)
        return LeaseSeen(
            standing=LeaseStanding.HELD,
            holder=_replica_of(token),
            remaining=timedelta(milliseconds=milliseconds),
        )

    async def _read(self, redis: Redis, tenant: str) -> tuple[bytes | str | None, int]:
        # One after the other: what changes in between changes right after an answer as well.
        token = await redis.get(self._name(tenant))
        milliseconds = await redis.pttl(self._name(tenant))
        return token, milliseconds

    def _name(self, tenant: str) -> str:
        return f"{self._prefix}lease:{tenant}"

    async def _acquire(self, tenant: str) -> Lock | LeaseOutcome:
        try:
            lock = await self._ask_for(tenant)
        except RedisUnreachable:
            return LeaseOutcome.UNREACHABLE
        return lock or LeaseOutcome.HELD

    async def _ask_for(self, tenant: str) -> Lock | None:
        earlier = self._unanswered.pop(tenant, None)
        token = earlier.token if earlier else f"{self._replica} {secrets.token_hex(16)}"
        is_answered = False
        try:
            lock = await self._client.ask(
                lambda redis: self._take(redis, tenant, token, may_be_ours=earlier is not None)
            )
            is_answered = True
        except RedisUnreachable as error:
            if error.has_answered:  # OOM, READONLY, MOVED: the next answers will be the same
                self._client.pause()
            raise
        finally:
            if not is_answered:  # a cancellation as well
                self._note_unanswered(tenant, token)
        return lock

    async def _take(
        self, redis: Redis, tenant: str, token: str, *, may_be_ours: bool
    ) -> Lock | None:
        lock = Lock(
            redis,
            self._name(tenant),
            timeout=self._client.times.ttl.total_seconds(),
            thread_local=False,  # the task that extends it may see its token, too
        )
        if await lock.acquire(blocking=False, token=token):
            return lock
        if may_be_ours:
            # As if this lock had taken it: `reacquire` compares before it sets the time anew.
            lock.local.token = token.encode()
            if await _owned(lock.reacquire()):
                return lock
        return None

    def _note_unanswered(self, tenant: str, token: str) -> None:
        """Keeps a token for the next try, and forgets those whose keys have expired."""
        now = asyncio.get_running_loop().time()
        for other, unanswered in list(self._unanswered.items()):
            if unanswered.until > now:
                break
            del self._unanswered[other]
        until = now + self._client.times.ttl.total_seconds()
        self._unanswered.pop(tenant, None)
        self._unanswered[tenant] = _Unanswered(token=token, until=until)

    async def _extend(self, lock: Lock, began: float) -> None:
        """Extends at half-life, until the whole life is used up or the lease is lost."""
        times = self._client.times
        ttl = times.ttl.total_seconds()
        # The last extension may arrive late by a whole answer.
        ends = began + (times.life - times.connect - times.answer).total_seconds()
        while True:
            await asyncio.sleep(ttl / 2)
            left = min(ttl, ends - asyncio.get_running_loop().time())
            if left <= ttl / 2:  # what it still has
                return
            if not await self._extend_once(lock, left):
                return

    async def _extend_once(self, lock: Lock, seconds: float) -> bool:
        try:
            return await self._client.ask(lambda _: _owned(lock.extend(seconds, replace_ttl=True)))
        except RedisUnreachable:  # the client has told; another holder does no harm
            return False


async def _owned(deed: Awaitable[object]) -> bool:
    """Awaits a script of the lock; whether the lease was still this holder's."""
    try:
        await deed
    except LockNotOwnedError:  # an answer, not a failure: expired, flushed, or somebody else's
        return False
    return True


def _replica_of(token: bytes | str) -> str:
    """Returns whose token it is; empty where it does not say."""
    text = token if isinstance(token, str) else token.decode(errors="replace")
    return text.rpartition(" ")[0]
