"""Escrows in memory, shared by the replicas of a `FakeRedis`. Passes the suite of the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broker.domain.escrow import Escrow
from support.fake_lease import FakeRedis


class FakeEscrows:
    """Upholds `Escrows`. What a flush forgets, it forgets."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis

    async def put(self, escrow: Escrow) -> bool:
        """See `ports.Escrows.put`."""
        await asyncio.sleep(0)  # a moment to be cancelled in, as with a real one
        if not self._redis.is_reachable:
            return False
        self._redis.escrows[(escrow.tenant, escrow.attempt.number)] = escrow
        return self._redis.is_answering

    async def find(self, tenant: str) -> Sequence[Escrow] | None:
        """See `ports.Escrows.find`."""
        found = await self.everything()
        return None if found is None else [each for each in found if each.tenant == tenant]

    async def everything(self) -> Sequence[Escrow] | None:
        """See `ports.Escrows.everything`."""
        await asyncio.sleep(0)  # as above
        is_told = self._redis.is_reachable and self._redis.is_answering
        return list(self._redis.escrows.values()) if is_told else None

    async def drop(self, escrow: Escrow) -> None:
        """See `ports.Escrows.drop`."""
        await asyncio.sleep(0)  # as above
        if self._redis.is_reachable:
            self._redis.escrows.pop((escrow.tenant, escrow.attempt.number), None)
