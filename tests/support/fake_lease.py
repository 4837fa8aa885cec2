"""A Redis in memory for unit tests and simulations, shared by the replicas that use it.

Passes the suites in `tests/conformance`. Times are the running event loop's, so a loop whose clock
is turned by hand turns this one as well. No task of its own: what time does is worked out when
somebody asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from broker.domain.escrow import Escrow
from broker.domain.facts import LeaseOutcome, LeaseStanding
from broker.lease.circuit import Circuit
from broker.lease.failure import RedisUnreachable
from broker.lease.times import LeaseTimes
from broker.ports import GrantMoved, LeaseSeen, Resubscribed

News = GrantMoved | Resubscribed

TIMES = LeaseTimes()


class _Owner:
    """One holding of a lease, by a replica."""

    def __init__(self, replica: str) -> None:
        self.replica = replica


@dataclass(slots=True, kw_only=True)
class _Lease:
    owner: object
    until: float
    ttl: float


class FakeRedis:
    """Leases and listeners, and what goes wrong with them.

    `deliveries` says when each listener gets an announcement, in seconds from now, once for each
    copy: `()` loses it, `(0, 0)` doubles it, `(3,)` delays it.
    """

    def __init__(self) -> None:
        self.deliveries: Callable[[GrantMoved], Sequence[float]] = lambda _: (0.0,)
        self.is_answering = True
        """False: it does what it is told, and its answers are lost."""

        self.escrows: dict[tuple[str, int], Escrow] = {}
        """Sealed elsewhere, in clear here: by tenant and number of the attempt."""

        self._is_reachable = True
        self._leases: dict[str, _Lease] = {}
        self._listeners: list[asyncio.Queue[News]] = []

    @property
    def is_reachable(self) -> bool:
        """Whether anybody reaches it; subscriptions end and begin again with this."""
        return self._is_reachable

    @is_reachable.setter
    def is_reachable(self, value: bool) -> None:
        if value and not self._is_reachable:
            self._tell_everybody(Resubscribed())
        if not value:
            self.stall()
        self._is_reachable = value

    @property
    def held(self) -> set[str]:
        """The tenants with a lease at this moment."""
        return {tenant for tenant, lease in self._leases.items() if lease.until > _now()}

    def flush(self) -> None:
        """Forgets everything, as FLUSHALL or a failover to an empty copy does."""
        self._leases.clear()
        self.escrows.clear()

    def stall(self) -> None:
        """Lets every lease run out under its holder, who does not come to extend it any more."""
        for lease in self._leases.values():
            lease.until = min(lease.until, _now() + lease.ttl)

    def take(self, tenant: str, owner: object, times: LeaseTimes) -> bool:
        """Gives a lease to an owner, unless another has it; extensions are counted in."""
        self._reach()
        if tenant in self.held and self._leases[tenant].owner is not owner:
            return False
        until = _now() + (times.life if self.is_answering else times.ttl).total_seconds()
        self._leases[tenant] = _Lease(owner=owner, until=until, ttl=times.ttl.total_seconds())
        self._answer()
        return True

    def look(self, tenant: str) -> LeaseSeen:
        """Tells how a lease stands; extensions to come are counted in."""
        self._reach()
        self._answer()
        if tenant not in self.held:
            return LeaseSeen(standing=LeaseStanding.FREE)
        lease = self._leases[tenant]
        remaining = timedelta(seconds=min(lease.until - _now(), lease.ttl))
        owner = lease.owner
        holder = owner.replica if isinstance(owner, _Owner) else str(owner)
        return LeaseSeen(standing=LeaseStanding.HELD, holder=holder, remaining=remaining)

    def stop_extending(self, tenant: str, owner: object) -> None:
        """Lets what an owner has left of a lease run out."""
        lease = self._leases.get(tenant)
        if lease is not None and lease.owner is owner:
            lease.until = min(lease.until, _now() + lease.ttl)

    def let_go(self, tenant: str, owner: object) -> None:
        """Ends a lease, if the owner still has it."""
        self._reach()
        lease = self._leases.get(tenant)
        if lease is not None and lease.owner is owner:
            del self._leases[tenant]

    def publish(self, moved: GrantMoved) -> None:
        """Tells those who listen, as often and as late as `deliveries` says."""
        for delay in self.deliveries(moved) if self._is_reachable else ():
            if delay:
                asyncio.get_running_loop().call_later(delay, self._tell_if_reachable, moved)
            else:
                self._tell_everybody(moved)

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[asyncio.Queue[News]]:
        """Gives what a new listener hears."""
        heard: asyncio.Queue[News] = asyncio.Queue()
        self._listeners.append(heard)
        if self._is_reachable:
            heard.put_nowait(Resubscribed())
        try:
            yield heard
        finally:
            self._listeners.remove(heard)

    def _reach(self) -> None:
        if not self._is_reachable:
            raise RedisUnreachable("fake")

    def _answer(self) -> None:
        if not self.is_answering:
            raise RedisUnreachable("fake")

    def _tell_if_reachable(self, moved: GrantMoved) -> None:
        if self._is_reachable:
            self._tell_everybody(moved)

    def _tell_everybody(self, news: News) -> None:
        for heard in self._listeners:
            heard.put_nowait(news)


class FakeLeases:
    """The leases of one replica."""

    def __init__(
        self, redis: FakeRedis, *, times: LeaseTimes = TIMES, replica: str = "one"
    ) -> None:
        self._redis = redis
        self._replica = replica
        self._times = times
        self._circuit = Circuit(times.pause)
        self._unanswered: dict[str, object] = {}

    @asynccontextmanager
    async def hold(self, tenant: str) -> AsyncIterator[LeaseOutcome]:
        """See `ports.Leases.hold`."""
        owner = self._unanswered.pop(tenant, None) or _Owner(self._replica)
        await asyncio.sleep(0)  # a moment to be cancelled in, as with a real one
        outcome = self._take(tenant, owner)
        try:
            yield outcome
        finally:
            if outcome is LeaseOutcome.ACQUIRED:
                self._redis.stop_extending(tenant, owner)
                with suppress(RedisUnreachable), self._circuit.asking():
                    self._redis.let_go(tenant, owner)

    async def look(self, tenant: str) -> LeaseSeen:
        """See `ports.Leases.look`."""
        await asyncio.sleep(0)  # as above
        try:
            with self._circuit.asking():
                return self._redis.look(tenant)
        except RedisUnreachable:
            return LeaseSeen(standing=LeaseStanding.UNREACHABLE)

    def _take(self, tenant: str, owner: object) -> LeaseOutcome:
        try:
            with self._circuit.asking():
                is_taken = self._redis.take(tenant, owner, self._times)
        except RedisUnreachable:
            self._unanswered[tenant] = owner
            return LeaseOutcome.UNREACHABLE
        return LeaseOutcome.ACQUIRED if is_taken else LeaseOutcome.HELD


class FakeAnnouncements:
    """The announcements of one replica."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis

    async def announce(self, moved: GrantMoved) -> None:
        """See `ports.Announcements.announce`."""
        await asyncio.sleep(0)  # as above
        self._redis.publish(moved)

    async def listen(self) -> AsyncGenerator[News, None]:
        """See `ports.Announcements.listen`."""
        async with self._redis.subscription() as heard:
            while True:
                yield await heard.get()


def _now() -> float:
    return asyncio.get_running_loop().time()
