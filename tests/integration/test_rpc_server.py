"""The gRPC server's life: its port, its health, its reflection, and how it leaves."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TypeAlias

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from broker.client.channel import open_channel
from broker.client.credentials import Credentials
from broker.rpc.health import DEPENDENCIES, SERVICES
from broker.rpc.server import AddressUnavailableError, ServerSettings, grpc_server
from broker.v1.token_service_pb2 import GetAccessTokenRequest, GetAccessTokenResponse
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.fake_broker import FakeBroker
from support.rpc import Served, Told, edge_of, failure_of, servicers_of, serving
from support.waiting import until

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


async def check(served: Served, service: str) -> int:
    call: grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]
    call = served.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    return (await call(HealthCheckRequest(service=service))).status


Watched: TypeAlias = "grpc.aio.UnaryStreamCall[HealthCheckRequest, HealthCheckResponse]"


def watch(served: Served, service: str) -> Watched:
    call: grpc.aio.UnaryStreamMultiCallable[HealthCheckRequest, HealthCheckResponse]
    call = served.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    return call(HealthCheckRequest(service=service))


async def next_status(watched: Watched) -> int:
    response = await watched.read()
    assert isinstance(response, HealthCheckResponse)
    return response.status


@pytest.mark.parametrize("service", [*SERVICES, *DEPENDENCIES])
async def test_nothing_serves_until_it_is_told(served: Served, service: str) -> None:
    assert await check(served, service) == NOT_SERVING

    served.health.set(service, serving=True)

    assert await check(served, service) == SERVING


async def test_the_health_of_an_unknown_service_is_not_found(served: Served) -> None:
    failure = await failure_of(check(served, "broker.v1.Frobnicator"))

    assert failure.code is grpc.StatusCode.NOT_FOUND


async def test_health_of_a_service_that_there_is_not_cannot_be_told(served: Served) -> None:
    with pytest.raises(KeyError):
        served.health.set("postgre", serving=True)


async def test_a_watcher_is_told_at_once_and_at_every_change(served: Served) -> None:
    watched = watch(served, "redis")
    told = [await next_status(watched)]

    for serving_now in (True, False):
        served.health.set("redis", serving=serving_now)
        told.append(await next_status(watched))

    assert told == [NOT_SERVING, SERVING, NOT_SERVING]


async def test_a_watcher_is_not_told_what_it_knows(served: Served) -> None:
    watched = watch(served, "redis")
    assert await next_status(watched) == NOT_SERVING

    served.health.set("redis", serving=False)
    served.health.set("pleo", serving=True)
    served.health.set("redis", serving=True)

    assert await next_status(watched) == SERVING
    watched.cancel()  # or closing the channel waits for who reads no further


async def test_a_watcher_of_an_unknown_service_waits_for_it(served: Served) -> None:
    """The health protocol: SERVICE_UNKNOWN, and the call goes on."""
    watched = watch(served, "later")

    assert await next_status(watched) == UNKNOWN
    assert not watched.done()


async def test_health_is_no_call_of_ours(served: Served) -> None:
    await check(served, "")

    assert served.told.calls == []


async def reflected(served: Served, request: ServerReflectionRequest) -> ServerReflectionResponse:
    call: grpc.aio.StreamStreamMultiCallable[ServerReflectionRequest, ServerReflectionResponse]
    call = served.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    (answer,) = [each async for each in call(iter([request]))]
    return answer


async def services_by_reflection(served: Served) -> set[str]:
    answer = await reflected(served, ServerReflectionRequest(list_services=""))
    return {service.name for service in answer.list_services_response.service}


async def test_reflection_lists_every_service(served: Served) -> None:
    assert await services_by_reflection(served) == {
        "broker.v1.GrantService",
        "broker.v1.OperationsService",
        "broker.v1.TokenService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize(
    "request_",
    [
        ServerReflectionRequest(file_by_filename="broker/v1/errors.proto"),
        ServerReflectionRequest(file_containing_symbol="broker.v1.ErrorReason"),
    ],
)
async def test_reflection_knows_the_reasons_of_failures(request_: ServerReflectionRequest) -> None:
    """In a fresh interpreter: this one may have loaded them for another test."""
    code = "import sys, broker.rpc.server; sys.exit('broker.v1.errors_pb2' not in sys.modules)"
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", code)

    async with serving() as served:
        answer = await reflected(served, request_)

    (file,) = answer.file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(file).name == "broker/v1/errors.proto"
    assert await ended.wait() == 0


async def test_reflection_can_be_switched_off() -> None:
    async with serving(reflection=False) as served:
        failure = await failure_of(services_by_reflection(served))

    assert failure.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "no address", "203.0.113.1:0"])
async def test_an_address_that_cannot_be_listened_on_is_named(served: Served, address: str) -> None:
    address = address.format(port=served.port)
    settings = ServerSettings(address=address)

    said = re.escape(f"cannot listen on {address} (BROKER_GRPC_ADDRESS)")
    with pytest.raises(AddressUnavailableError, match=f"^{said}$"):
        async with grpc_server(settings, servicers_of(FakeBroker()), edge=edge_of(Told())):
            pass


async def ask(served: Served) -> GetAccessTokenResponse:
    return await served.tokens.GetAccessToken(GetAccessTokenRequest(tenant="acme"))


async def test_a_herd_that_comes_at_once_is_answered() -> None:
    """GRPC core takes 1000 calls that nobody has picked up, cancels more at random, then all."""
    async with serving() as served, asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(ask(served), name="a call") for _ in range(4000)]

    assert {call.result().generation for call in calls} == {7}


async def test_a_call_that_is_under_way_is_answered_in_a_drain() -> None:
    async with AsyncExitStack() as held, asyncio.TaskGroup() as tasks, serving() as served:
        await held.enter_async_context(served.broker.hold())
        call = tasks.create_task(ask(served), name="a call")
        await served.broker.waiting.wait()
        watched = watch(served, "")
        assert await next_status(watched) == NOT_SERVING
        tasks.create_task(let_go_when_over(watched, held), name="let go")

    assert call.result().generation == 7


async def test_who_watches_health_is_told_before_calls_are_refused() -> None:
    async with asyncio.TaskGroup() as tasks, serving() as served:
        served.health.set("", serving=True)
        watched = watch(served, "")
        assert await next_status(watched) == SERVING
        call = tasks.create_task(ask_when_told(served, watched), name="a call")

    assert call.result().generation == 7


async def ask_when_told(served: Served, watched: Watched) -> GetAccessTokenResponse:
    """Asks once more though the server is about to go, as a call on its way does."""
    assert await next_status(watched) == NOT_SERVING
    answer = await ask(served)
    assert await watched.read() is grpc.aio.EOF
    return answer


async def test_a_channel_of_the_client_repeats_what_a_stop_cut_off() -> None:
    codes = [grpc.StatusCode.CANCELLED]

    async def cut_off_once(
        _: GetAccessTokenRequest,
        context: grpc.aio.ServicerContext[GetAccessTokenRequest, GetAccessTokenResponse],
    ) -> GetAccessTokenResponse:
        while codes:
            await context.abort(codes.pop())
        return GetAccessTokenResponse(generation=7)

    async with answering(cut_off_once) as address, open_channel(address, Credentials()) as channel:
        answer = await TokenServiceStub(channel).GetAccessToken(GetAccessTokenRequest())

    assert (answer.generation, codes) == (7, [])


@asynccontextmanager
async def answering(behaviour: Callable[..., Awaitable[Message]]) -> AsyncIterator[str]:
    """Serves one method, by gRPC alone."""
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        behaviour, GetAccessTokenRequest.FromString, GetAccessTokenResponse.SerializeToString
    )
    server.add_registered_method_handlers("broker.v1.TokenService", {"GetAccessToken": method})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def let_go_when_over(watched: Watched, held: AsyncExitStack) -> None:
    assert await watched.read() is grpc.aio.EOF
    await held.aclose()


async def test_a_drain_has_the_last_word_on_health_and_waits_for_no_watcher(
    served: Served,
) -> None:
    served.health.set("", serving=True)
    watched = watch(served, "")
    assert await next_status(watched) == SERVING

    served.health.leave()
    served.health.set("", serving=True)

    assert await next_status(watched) == NOT_SERVING
    assert served.health.is_watched
    served.health.drain()
    assert await watched.read() is grpc.aio.EOF
    assert await check(served, "") == NOT_SERVING


async def test_a_call_that_outlasts_the_grace_is_cancelled() -> None:
    a_moment = timedelta(milliseconds=50)
    async with AsyncExitStack() as held, asyncio.TaskGroup() as tasks:
        async with serving(grace=a_moment) as served:
            await held.enter_async_context(served.broker.hold())
            call = tasks.create_task(failure_of(ask(served)), name="a call")
            await served.broker.waiting.wait()

        await until(lambda: [each.code for each in served.told.calls] == ["CANCELLED"])

    assert call.result().code is grpc.StatusCode.UNAVAILABLE
