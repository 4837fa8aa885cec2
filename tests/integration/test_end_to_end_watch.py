"""Watching a token over two brokers: what one does, the other's watchers are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from broker.v1.token_service_pb2 import (
    GetAccessTokenResponse,
    WatchAccessTokensRequest,
    WatchAccessTokensResponse,
)
from support.fleet import PATIENCE_SECONDS, Fleet
from support.onboarding import connect, expire, new_customer, revoke
from support.replica import Replica
from support.rpc import details

pytestmark = pytest.mark.asyncio(loop_scope="module")

Stream: TypeAlias = grpc.aio.StreamStreamCall[WatchAccessTokensRequest, WatchAccessTokensResponse]


@asynccontextmanager
async def watching(replica: Replica, *tenants: str) -> AsyncIterator[Stream]:
    """Watches tenants at a broker."""
    stream = replica.tokens.WatchAccessTokens()
    subscribed = WatchAccessTokensRequest.Subscribe(tenants=tenants)
    await stream.write(WatchAccessTokensRequest(subscribe=subscribed))
    try:
        yield stream
    finally:
        stream.cancel()


async def read(stream: Stream) -> WatchAccessTokensResponse:
    """Returns what comes next, heartbeats left aside."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            told = await stream.read()
            assert isinstance(told, WatchAccessTokensResponse)
            if not told.HasField("heartbeat"):
                return told


async def token(stream: Stream) -> GetAccessTokenResponse:
    """Returns the token that comes next."""
    told = await read(stream)
    assert told.HasField("token"), told.status.message
    return told.token


async def test_a_watcher_is_told_of_an_expiry_that_nobody_asked_about(two: Fleet) -> None:
    first, second = two.replicas[:2]
    customer = new_customer(two.sandbox)
    await connect(two, first, customer)
    async with watching(second, customer.tenant) as stream:
        assert (await token(stream)).generation == 1

        await expire(two, customer.tenant, known_to=second)

        assert (await token(stream)).generation == 2
    assert two.sandbox.record.counts(customer.company).presentations == 1


async def test_a_watcher_is_told_of_a_connection_and_of_its_end(two: Fleet) -> None:
    first, second = two.replicas[:2]
    customer = new_customer(two.sandbox)
    async with watching(second, customer.tenant) as stream:
        assert reason(await read(stream)) == "TENANT_NOT_FOUND"

        await connect(two, first, customer)
        assert (await token(stream)).generation == 1

        await revoke(first, customer.tenant)
        ended = await read(stream)
        assert reason(ended) == "TENANT_NOT_FOUND"


async def test_a_broker_that_goes_ends_its_watches_first(two: Fleet) -> None:
    leaves = await two.started()
    customer = new_customer(two.sandbox)
    await connect(two, leaves, customer)
    async with watching(leaves, customer.tenant) as stream:
        await token(stream)

        leaves.terminate()

        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK
    assert await leaves.ended() == 0


def reason(told: WatchAccessTokensResponse) -> str:
    """Returns why there is no token."""
    (info,) = details(told.status, ErrorInfo)
    return info.reason
