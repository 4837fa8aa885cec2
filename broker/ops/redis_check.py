"""Whether Redis answers, and does not throw away what it is given."""

from __future__ import annotations

from broker.lease.client import RedisClient
from broker.lease.status import RedisStatus, probe
from broker.ops.health import CheckResult


async def redis_result(redis: RedisClient) -> CheckResult:
    """Judges a Redis. Unreachable is what does not answer twice in a row.

    The times are short (`lease.times`), so that a refresh is spared an outage: half a second in
    which this process, or the machine, stood still would be one too. A Redis that is away or slow
    is so at the second question as well, half a second later.
    """
    status = await probe(redis)
    if not status.is_reachable:
        status = await probe(redis)
    return CheckResult(error=_error_of(status))


def _error_of(status: RedisStatus) -> str:
    if not status.is_reachable:
        return "REDIS_UNREACHABLE"
    if status.is_cluster:
        return "REDIS_IS_CLUSTER"
    if status.is_refusing:
        return "REDIS_REFUSES"
    return "" if status.maxmemory_policy in {None, "noeviction"} else "REDIS_EVICTS"
