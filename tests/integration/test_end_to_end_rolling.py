"""Brokers are replaced one by one: callers that do as deploy/README.md says lose no call."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from broker.dev.rundir import RunDirectory
from broker.v1.token_service_pb2 import WatchAccessTokensRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.fleet import Fleet, fleet, until_true
from support.onboarding import connect, get, new_customer
from support.source import ROOT

if TYPE_CHECKING:
    from broker.v1.token_service_pb2_grpc import TokenServiceAsyncStub

_BETWEEN_SECONDS = 0.02
"""Fifty calls a second: the load, and no wait for anything."""


def recommended() -> str:
    """Returns the service config of deploy/README.md."""
    readme = (ROOT / "deploy" / "README.md").read_text()
    (text,) = re.findall(r"```json\n(.+?)```", readme, re.DOTALL)
    return json.dumps(json.loads(text))


def free_ports(count: int) -> list[int]:
    """Returns ports that a broker and its successor can both be given."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in made:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in made]


@dataclass(slots=True, kw_only=True)
class Callers:
    """What calls and a watch over one channel came to."""

    tokens: TokenServiceAsyncStub
    tenant: str
    answered: int = 0
    watched: int = 0
    failed: list[str] = field(default_factory=list)

    async def one(self) -> None:
        try:
            await get(self.tokens, self.tenant)
            self.answered += 1
        except grpc.aio.AioRpcError as error:
            self.failed.append(f"call: {error.code()} {error.details()}")

    async def call(self, ended: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as calls:
            while not ended.is_set():
                calls.create_task(self.one())
                await asyncio.sleep(_BETWEEN_SECONDS)

    async def watch(self) -> None:
        """Watches, and again when a stream ends with OK."""
        subscribe = WatchAccessTokensRequest.Subscribe(tenants=[self.tenant])
        while True:
            stream = self.tokens.WatchAccessTokens()
            try:
                await stream.write(WatchAccessTokensRequest(subscribe=subscribe))
                async for told in stream:
                    self.watched += told.HasField("token")
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                self.failed.append(f"watch: {error!r}")


@pytest.fixture
async def brokers(database_url: str, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    async with fleet(database_url, redis_url, run) as made:
        yield made


@pytest.fixture
async def callers(brokers: Fleet) -> AsyncIterator[tuple[Callers, list[int]]]:
    ports = free_ports(3)
    for port in ports:
        await brokers.start(BROKER_GRPC_ADDRESS=f"127.0.0.1:{port}")
    customer = new_customer(brokers.sandbox)
    await connect(brokers, brokers.replicas[0], customer)
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    options = [("grpc.service_config", recommended()), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        stub = TokenServiceStub(channel)
        yield Callers(tokens=stub, tenant=customer.tenant), ports


async def test_brokers_are_replaced_and_no_call_fails(
    brokers: Fleet, callers: tuple[Callers, list[int]]
) -> None:
    made, ports = callers
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(made.call(ended))
        watch = group.create_task(made.watch())
        for old, port in zip(list(brokers.replicas), ports, strict=True):
            before = made.answered
            old.terminate()
            assert await old.ended() == 0
            await brokers.start(BROKER_GRPC_ADDRESS=f"127.0.0.1:{port}")

            async def is_served(after: int = before) -> bool:
                return made.answered > after + 100

            await until_true(is_served)
        ended.set()
        watch.cancel()

    assert made.failed == []
    assert made.watched > 1
