"""gRPC health of a real broker, as a real client watches it while a dependency goes and comes."""

from __future__ import annotations

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from broker.dev.rundir import RunDirectory
from support.fleet import fleet
from support.proxy import redis_proxy

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


async def test_grpc_health_tells_watchers_that_redis_goes_and_comes(
    database_url: str, redis_url: str, run: RunDirectory
) -> None:
    async with redis_proxy(redis_url) as (way, url), fleet(database_url, url, run) as brokers:
        replica = await brokers.started(BROKER_REDIS_URL=url)
        watched = HealthStub(replica.channel()).Watch(HealthCheckRequest(service="redis"))
        told = [(await watched.read()).status]
        way.refuse()
        way.cut()
        told.append((await watched.read()).status)
        serving = await HealthStub(replica.channel()).Check(HealthCheckRequest(service=""))
        await way.accept()
        told.append((await watched.read()).status)
        watched.cancel()

    assert told == [SERVING, NOT_SERVING, SERVING]
    assert serving.status == SERVING
