"""How Redis is, for health and doctor. Asks it also while the rest of this room goes without."""

from __future__ import annotations

from dataclasses import dataclass

from broker.lease.client import RedisClient
from broker.lease.failure import RedisUnreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStatus:
    """What a Redis says of itself."""

    is_reachable: bool
    maxmemory_policy: str | None
    """`noeviction` is required. None: unreachable, or the user may not ask."""


async def probe(client: RedisClient) -> RedisStatus:
    """Asks. Never raises, and takes no longer than its timeouts. Safe to cancel and to retry."""
    try:
        told = await client.ask_anyway(lambda redis: redis.info("memory"))
    except RedisUnreachable as error:
        return RedisStatus(is_reachable=error.has_answered, maxmemory_policy=None)
    policy = told.get("maxmemory_policy")
    return RedisStatus(is_reachable=True, maxmemory_policy=str(policy) if policy else None)
