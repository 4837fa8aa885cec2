"""gRPC health of a real broker, as a real client watches it while a dependency goes and comes."""

from __future__ import annotations

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from broker.dev.rundir import RunDirectory
from support.fleet import fleet
from support.proxy import redis_proxy

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


def watch(
    channel: grpc.aio.Channel,
) -> grpc.aio.UnaryStreamMultiCallable[HealthCheckRequest, HealthCheckResponse]:
    return channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )


def check(
    channel: grpc.aio.Channel,
) -> grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]:
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )


def status_of(answer: object) -> int:
    assert isinstance(answer, HealthCheckResponse)
    return answer.status


async def test_grpc_health_tells_watchers_that_redis_goes_and_comes(
    database_url: str, redis_url: str, run: RunDirectory
) -> None:
    async with redis_proxy(redis_url) as (way, url), fleet(database_url, url, run) as brokers:
        replica = await brokers.started(BROKER_REDIS_URL=url)
        watched = watch(replica.channel())(HealthCheckRequest(service="redis"))
        told = [status_of(await watched.read())]
        way.refuse()
        way.cut()
        told.append(status_of(await watched.read()))
        serving = await check(replica.channel())(HealthCheckRequest(service=""))
        await way.accept()
        told.append(status_of(await watched.read()))
        watched.cancel()

    assert told == [SERVING, NOT_SERVING, SERVING]
    assert status_of(serving) == SERVING
