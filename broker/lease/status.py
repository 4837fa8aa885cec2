"""How Redis is, for health and doctor. Asks it also while the rest of this room goes without."""

from __future__ import annotations

from dataclasses import dataclass

from redis.exceptions import NoPermissionError

from broker.lease.client import RedisClient
from broker.lease.failure import RedisUnreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStatus:
    """What a Redis says of itself."""

    is_reachable: bool
    maxmemory_policy: str | None
    """`noeviction` is required. None: unreachable, or the user may not ask."""

    is_cluster: bool = False
    """A node of a Redis Cluster, and the address does not say so: most keys are elsewhere."""

    is_refusing: bool = False
    """It answers, and does not do what a connection begins with: the number of the database is none
    of its own. A node of a cluster has 0 alone."""

    why: str = ""
    """What kept it from being reached: classes of errors, without a word of their texts."""


async def probe(client: RedisClient) -> RedisStatus:
    """Asks. Never raises, and takes no longer than its timeouts. Safe to cancel and to retry."""
    try:
        # Several sections at once are asked for in one word: Redis 6.2 takes no list of them.
        told = await client.ask_anyway(lambda redis: redis.info())
    except RedisUnreachable as error:
        may_not_ask = isinstance(error.__cause__, NoPermissionError)
        return RedisStatus(
            is_reachable=error.has_answered,
            maxmemory_policy=None,
            is_refusing=error.has_answered and not may_not_ask,
            why=error.why,
        )
    policy = told.get("maxmemory_policy")
    return RedisStatus(
        is_reachable=True,
        maxmemory_policy=str(policy) if policy else None,
        is_cluster=bool(told.get("cluster_enabled")) and not client.is_for_cluster,
    )
