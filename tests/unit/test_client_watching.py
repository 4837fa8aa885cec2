"""What a client does with the stream of WatchAccessTokens; in virtual time."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from broker.client import BrokerUnreachable, ReauthRequired
from broker.v1.token_service_pb2 import WatchAccessTokensResponse
from support.client_stories import client_of
from support.fake_calls import FakeCalls, answer_of, failure
from support.virtual_time import in_virtual_time, let_others_run, pass_time

HEARTBEAT = WatchAccessTokensResponse(heartbeat=WatchAccessTokensResponse.Heartbeat())


def ended(reason: str, *, retry_after: int | None = None) -> WatchAccessTokensResponse:
    """Returns what is told of a tenant without a token."""
    status = Status(code=9, message=reason)
    details: list[ErrorInfo | RetryInfo] = [ErrorInfo(domain="pleo-token-broker", reason=reason)]
    if retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromSeconds(retry_after)
        details.append(retry)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return WatchAccessTokensResponse(tenant="acme", status=status)


async def pass_with_heartbeats(calls: FakeCalls, seconds: int) -> None:
    """Lets time pass in which the stream shows signs of life."""
    for _ in range(seconds // 10):
        calls.stream.tell(HEARTBEAT)
        await pass_time(10)


@in_virtual_time
async def test_a_tenant_in_use_is_watched_and_its_rotations_cost_no_call() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        await let_others_run()
        assert calls.stream.watched == {"acme"}

        for generation in range(2, 12):
            calls.stream.tell_token("acme", answer_of(generation))
            await let_others_run()
            assert (await client.get("acme")).generation == generation
    assert len(calls.asked) == 1


@in_virtual_time
async def test_an_end_that_is_told_drops_the_token_at_once() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        await let_others_run()
        calls.answer = failure("REAUTH_REQUIRED", code=grpc.StatusCode.FAILED_PRECONDITION)

        calls.stream.tell(ended("REAUTH_REQUIRED"))
        await let_others_run()

        assert client.cached("acme") is None
        with pytest.raises(ReauthRequired):
            await client.get("acme")
        assert calls.stream.watched == set()


@in_virtual_time
async def test_what_waiting_mends_leaves_the_token_its_lease() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        await let_others_run()

        calls.stream.tell(ended("STORE_UNAVAILABLE", retry_after=1))
        await let_others_run()

        assert client.cached("acme") is not None
        assert calls.stream.watched == {"acme"}


@in_virtual_time
async def test_an_answer_on_its_way_does_not_bring_an_ended_token_back() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client, asyncio.TaskGroup() as tasks:
        await client.get("acme")
        await let_others_run()
        await pass_with_heartbeats(calls, 490)
        calls.delay = 1
        asking = tasks.create_task(client.get("acme"), name="asks")
        await let_others_run()

        calls.stream.tell(ended("TENANT_NOT_FOUND"))

        assert (await asking).generation == 1
        assert client.cached("acme") is None


@in_virtual_time
async def test_a_stream_that_ends_is_opened_anew_with_all_tenants() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        await client.get("other")
        await let_others_run()

        calls.stream.tell(HEARTBEAT)
        calls.stream.end()
        await pass_time(0.3)
        await let_others_run()

        assert len(calls.streams) == 2
        assert calls.stream.watched == {"acme", "other"}


@in_virtual_time
async def test_streams_that_fail_are_opened_ever_less_often() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        for _ in range(12):
            await let_others_run()
            count = len(calls.streams)
            calls.stream.end(failure())
            while len(calls.streams) == count:
                await pass_time(0.05)
        assert asyncio.get_running_loop().time() > 30

        calls.stream.tell_token("acme", answer_of(2))
        await let_others_run()
        assert (await client.get("acme")).generation == 2


@in_virtual_time
async def test_a_silent_stream_is_taken_for_dead() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        await pass_time(44)
        assert len(calls.streams) == 1

        await pass_time(2)

        assert len(calls.streams) == 2


@in_virtual_time
async def test_signs_of_life_keep_a_stream() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        for _ in range(10):
            await pass_time(30)
            calls.stream.tell(HEARTBEAT)
        assert len(calls.streams) == 1


@in_virtual_time
async def test_without_a_stream_the_client_asks_as_if_it_never_had_one() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        await let_others_run()
        calls.stream.end(failure())
        await pass_time(480)
        calls.answer = failure()

        with pytest.raises(BrokerUnreachable):
            await client.get("acme")
        calls.answer = answer_of(2)
        assert (await client.get("acme")).generation == 2


@in_virtual_time
async def test_a_tenant_that_nobody_used_for_a_generation_is_left() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        await let_others_run()

        calls.stream.tell_token("acme", answer_of(2))
        await let_others_run()
        assert calls.stream.watched == {"acme"}
        calls.stream.tell_token("acme", answer_of(3))
        await let_others_run()

        assert calls.stream.watched == set()
        assert (await client.get("acme")).generation == 3


@in_virtual_time
async def test_who_asks_shortly_before_a_rotation_is_told_of_it_without_a_call() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client, asyncio.TaskGroup() as tasks:
        await client.get("acme")
        await let_others_run()
        calls.stream.tell_token("acme", answer_of(1))
        await pass_with_heartbeats(calls, 480)
        asks = [tasks.create_task(client.get("acme"), name="asks") for _ in range(3)]
        await pass_time(1)

        calls.stream.tell_token("acme", answer_of(2))

        assert {(await each).generation for each in asks} == {2}
        assert asyncio.get_running_loop().time() == 481
    assert len(calls.asked) == 1


@in_virtual_time
async def test_a_rotation_that_is_not_told_of_is_asked_about() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        await let_others_run()
        calls.stream.tell_token("acme", answer_of(1))
        await pass_with_heartbeats(calls, 480)
        calls.answer = answer_of(2)

        assert (await client.get("acme")).generation == 2

        assert 482 < asyncio.get_running_loop().time() < 483


@in_virtual_time
async def test_a_stream_that_has_told_nothing_is_not_waited_for() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client:
        await client.get("acme")
        await let_others_run()
        calls.stream.tell_token("acme", answer_of(1))
        await let_others_run()
        calls.stream.end()
        await pass_time(0.3)
        await pass_with_heartbeats(calls, 480)
        calls.answer = answer_of(2)

        assert (await client.get("acme")).generation == 2

        assert asyncio.get_running_loop().time() < 481


@in_virtual_time
async def test_an_end_that_is_told_before_the_rotation_is_asked_about_at_once() -> None:
    calls = FakeCalls()
    async with client_of(calls, watch=True) as client, asyncio.TaskGroup() as tasks:
        await client.get("acme")
        await let_others_run()
        calls.stream.tell_token("acme", answer_of(1))
        await pass_with_heartbeats(calls, 480)
        asks = tasks.create_task(client.get("acme"), name="asks")
        await let_others_run()
        calls.answer = answer_of(2)

        calls.stream.tell(ended("REAUTH_REQUIRED"))

        assert (await asks).generation == 2
        assert asyncio.get_running_loop().time() == 480
        assert client.cached("acme") is not None


@in_virtual_time
async def test_without_watch_there_is_no_stream() -> None:
    calls = FakeCalls()
    async with client_of(calls) as client:
        await client.get("acme")
        await pass_time(100)
    assert calls.streams == []
