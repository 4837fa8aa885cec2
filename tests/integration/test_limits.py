"""What one caller may use up: messages, calls at once on a connection, calls a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import pytest

from broker.v1.grant_service_pb2 import ImportGrantRequest
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.callers import Guarded, guarded
from support.certificates import dns
from support.rpc import PUSHBACK, Failure, Served, failure_of, retry_delay, serving
from support.waiting import until

POLICY = """
callers:
  - identity: dns:busy
    rpcs: [TokenService/GetAccessToken]
    tenants: ["*"]
  - identity: dns:calm
    rpcs: [TokenService/GetAccessToken]
    tenants: ["*"]
"""


async def ask(channel: grpc.aio.Channel) -> int:
    stub = TokenServiceStub(channel)
    return (await stub.GetAccessToken(GetAccessTokenRequest(tenant="acme"))).generation


async def test_a_message_larger_than_any_request_is_refused() -> None:
    request = ImportGrantRequest(tenant="acme", refresh_token="x" * (128 * 1024))
    async with serving() as served:
        failure = await failure_of(served.grants.ImportGrant(request))

    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.broker.asked == []


async def test_the_largest_request_that_there_may_be_is_read() -> None:
    request = ImportGrantRequest(
        tenant="t" * 200,
        refresh_token="x" * 16_384,
        access_token="x" * 16_384,
        scopes=["s" * 128] * 100,
        expected_subject="s" * 200,
    )
    request.expire_time.GetCurrentTime()
    async with serving() as served:
        assert await served.grants.ImportGrant(request) is not None


async def test_no_connection_has_more_calls_than_the_limit() -> None:
    async with (
        asyncio.TaskGroup() as tasks,
        serving(max_streams=10) as served,
        another_channel(served) as another,
    ):
        async with served.broker.hold():
            calls = [
                tasks.create_task(outcome_of(ask(served.channel)), name="a call") for _ in range(50)
            ]
            await until(lambda: len(served.broker.asked) == 10)
            last = tasks.create_task(ask(another), name="the last call")
            await until(lambda: len(served.broker.asked) == 11)
        outcomes = {await call for call in calls}
        assert await last == 7

    assert outcomes <= {"OK", "UNAVAILABLE"}


def another_channel(served: Served) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options)


async def outcome_of(call: Awaitable[object]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Guarded]:
    """Lets ten calls of a caller in at once, and one a second after that."""
    async with guarded(tmp_path, POLICY, settings={"BROKER_CALLER_MAX_RATE": "1"}) as server:
        yield server


async def refused_of(channel: grpc.aio.Channel, count: int) -> list[Failure]:
    """Calls so often, and returns what was refused."""
    refused = []
    for _ in range(count):
        try:
            await ask(channel)
        except grpc.aio.AioRpcError as error:
            refused.append(await failure_of(_raised(error)))
    return refused


async def _raised(error: grpc.aio.AioRpcError) -> None:
    raise error


async def test_a_caller_who_calls_too_often_is_told_to_wait(server: Guarded) -> None:
    async with server.channel(server.authority.issue(dns("busy"))) as channel:
        refused = await refused_of(channel, 40)

    failure = refused[-1]
    delay = retry_delay(failure.status)
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.error_info.reason == "CALLER_RATE_LIMITED"
    assert failure.message == "CALLER_RATE_LIMITED: more than 1 calls per second from dns:busy"
    assert delay is not None
    assert 0 < delay.total_seconds() <= 1
    assert failure.trailers[PUSHBACK] == str(round(delay.total_seconds() * 1000))


async def test_one_busy_caller_leaves_the_others_alone(server: Guarded) -> None:
    async with AsyncExitStack() as stack:
        busy, calm = [
            await stack.enter_async_context(server.channel(server.authority.issue(dns(name))))
            for name in ("busy", "calm")
        ]
        assert await refused_of(busy, 40)

        assert await refused_of(calm, 10) == []


async def test_a_second_connection_is_no_second_allowance(server: Guarded) -> None:
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(server.channel(server.authority.issue(dns("busy"))))
            for _ in range(2)
        ]
        await refused_of(first, 40)

        assert len(await refused_of(second, 5)) > 0
