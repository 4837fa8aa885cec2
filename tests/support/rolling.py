"""Load on a fleet while its brokers are replaced one by one, and what callers lose by it.

Callers are of two kinds: channels that know nothing but the service config of `deploy/README.md`,
for tokens and for a web tier, and an application that calls Pleo's API through `broker.client`.
Whose code the brokers run is the test's to say.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc.aio
import httpx

from broker.client import Credentials, PleoAuth, TokenClient
from broker.sandbox.faults import Delay
from broker.v1.grant_service_pb2_grpc import GrantServiceStub
from broker.v1.operations_service_pb2 import RefreshGrantRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from broker.v1.token_service_pb2 import GetAccessTokenRequest, WatchAccessTokensRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.fleet import NO_TLS, PATIENCE_SECONDS, Fleet, until_true
from support.onboarding import Customer, connect, new_customer
from support.replica import Replica
from support.source import ROOT
from support.waiting import until
from support.web_load import WebTier

if TYPE_CHECKING:
    from broker.v1.token_service_pb2_grpc import TokenServiceAsyncStub

_BETWEEN_SECONDS: Final = 0.01
"""A hundred calls a second, and as many of the application: the load, and no wait for anything."""

_BETWEEN_JOBS_SECONDS: Final = 0.1
"""Each opens connections to all brokers."""

_BEFORE_WATCHING_SECONDS: Final = 0.1
"""As any watcher waits before it opens a stream anew."""

_SENT_SECONDS: Final = 0.3
"""How long Pleo takes for what is under way as a broker is told to go."""

_GET: Final = "TokenService/GetAccessToken"


def recommended_config() -> str:
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
    """What calls over one channel came to."""

    tokens: TokenServiceAsyncStub
    tenants: Sequence[str]
    answered: int = 0
    newest: dict[str, int] = field(default_factory=dict)
    """What a watch was told of each tenant."""

    streams: int = 0
    failed: list[str] = field(default_factory=list)

    async def call(self) -> None:
        """Calls until it is cancelled; what is under way then is awaited by the group."""
        async with asyncio.TaskGroup() as calls:
            try:
                while True:
                    for tenant in self.tenants:
                        calls.create_task(self._ask(tenant), name="a call")
                        await asyncio.sleep(_BETWEEN_SECONDS)
            except asyncio.CancelledError:
                pass

    async def watch(self) -> None:
        """Watches, and again when a stream ends with OK, until it is cancelled."""
        subscribe = WatchAccessTokensRequest.Subscribe(tenants=self.tenants)
        while True:
            stream = self.tokens.WatchAccessTokens(
                iter([WatchAccessTokensRequest(subscribe=subscribe)])
            )
            self.streams += 1
            try:
                async for told in stream:
                    if told.HasField("token"):
                        self._hear(told.tenant, told.token.generation)
            except grpc.aio.AioRpcError as error:
                self.failed.append(f"watch: {error.code()} {error.details()}")
            await asyncio.sleep(_BEFORE_WATCHING_SECONDS)

    async def until_answered(self, more: int) -> None:
        """Waits for so many more answers."""
        before = self.answered
        await until(lambda: self.answered >= before + more)

    async def _ask(self, tenant: str) -> None:
        request = GetAccessTokenRequest(tenant=tenant)
        try:
            await self.tokens.GetAccessToken(request, timeout=PATIENCE_SECONDS)
            self.answered += 1
        except grpc.aio.AioRpcError as error:
            self.failed.append(f"call: {error.code()} {error.details()}")

    def _hear(self, tenant: str, generation: int) -> None:
        if generation < self.newest.get(tenant, 0):
            self.failed.append(f"watch: generation {generation} after {self.newest[tenant]}")
        self.newest[tenant] = generation


@dataclass(slots=True, kw_only=True)
class Application:
    """Calls Pleo's API as `broker.client` is meant to be used.

    For a tenant that nobody rotates by hand: that ends a token at Pleo before anybody can know.
    """

    address: str
    api: str
    tenant: str
    seen: Counter[int] = field(default_factory=Counter)
    """The HTTP statuses."""

    async def work(self) -> None:
        """Calls as a service does, with one client, until it is cancelled."""
        async with self._http(is_watching=True) as http:
            while True:
                await self._call(http)
                await asyncio.sleep(_BETWEEN_SECONDS)

    async def work_in_jobs(self) -> None:
        """Calls as jobs do that come and go, each with a client of its own."""
        while True:
            async with self._http() as http:
                await self._call(http)
            await asyncio.sleep(_BETWEEN_JOBS_SECONDS)

    async def _call(self, http: httpx.AsyncClient) -> None:
        response = await http.get(f"{self.api}/v1/export-items")
        self.seen[response.status_code] += 1

    @asynccontextmanager
    async def _http(self, *, is_watching: bool = False) -> AsyncIterator[httpx.AsyncClient]:
        # Insecure: what is a list of loopback addresses does not look like one.
        credentials = Credentials(insecure=True)
        async with TokenClient(self.address, credentials=credentials, watch=is_watching) as client:
            auth = PleoAuth(client, self.tenant, api_url=self.api)
            async with httpx.AsyncClient(
                verify=NO_TLS, auth=auth, timeout=PATIENCE_SECONDS
            ) as http:
                yield http


@dataclass(slots=True, kw_only=True)
class Rolling:
    """Brokers under load, on ports that their successors take over."""

    brokers: Fleet
    ports: list[int]
    customers: list[Customer]
    """Of the callers."""

    callers: Callers
    application: Application
    web: WebTier
    rotated: int = 0
    """Rotations that were under way as a broker was told to go, and were answered."""

    async def replace(self, old: Replica, port: int) -> Replica:
        """Ends a broker in the middle of its work, and starts its successor."""
        (first, *_) = rotating = [
            asyncio.create_task(rotate(old, customer.tenant), name="rotates")
            for customer in self.customers
        ]
        await self._until_one_is_sent(first)
        old.terminate()
        self.rotated += sum(await asyncio.gather(*rotating))
        assert await old.ended() == 0, old.said
        new = await self.brokers.started(BROKER_GRPC_ADDRESS=f"127.0.0.1:{port}")
        await self.until_called([new])
        return new

    async def replace_all(self) -> list[Replica]:
        """Replaces one after the other, and returns their successors."""
        olds = list(self.brokers.replicas)
        return [await self.replace(old, port) for old, port in zip(olds, self.ports, strict=True)]

    async def until_called(self, replicas: Sequence[Replica]) -> None:
        """Waits until callers have found brokers."""

        async def is_called() -> bool:
            return all([await calls_of(self.brokers, each) > 0 for each in replicas])

        await until_true(is_called)

    async def shares(self, replicas: Sequence[Replica]) -> list[float]:
        """Returns which part of the next calls each broker gets."""
        before = [await calls_of(self.brokers, each) for each in replicas]
        await self.callers.until_answered(150)
        after = [await calls_of(self.brokers, each) for each in replicas]
        gained = [now - then for now, then in zip(after, before, strict=True)]
        return [each / sum(gained) for each in gained]

    async def _until_one_is_sent(self, rotating: asyncio.Task[int]) -> None:
        record = self.brokers.sandbox.record
        self.brokers.sandbox.faults.add(
            Delay(seconds=_SENT_SECONDS), grant_type="refresh_token", times=len(self.customers)
        )
        before = record.counts().presentations
        await until(lambda: record.counts().presentations > before or rotating.done())


async def rotate(replica: Replica, tenant: str) -> int:
    """Has a token rotated by a broker, and returns 1."""
    operations = OperationsServiceStub(replica.first_channel)
    request = RefreshGrantRequest(tenant=tenant, reason="the test says so")
    await operations.RefreshGrant(request, timeout=PATIENCE_SECONDS)
    return 1


async def calls_of(brokers: Fleet, replica: Replica) -> float:
    """Returns how many tokens a broker was asked for."""
    metrics = (await brokers.asked(replica, "/metrics")).text
    counted = rf'^token_broker_calls_total{{.*method="{_GET}".*}} (\S+)$'
    return sum(float(each) for each in re.findall(counted, metrics, re.MULTILINE))


@asynccontextmanager
async def under_load(brokers: Fleet, *, count: int = 3) -> AsyncIterator[Rolling]:
    """Starts brokers, and calls them until the block ends."""
    ports = free_ports(count)
    for port in ports:
        brokers.launch(BROKER_GRPC_ADDRESS=f"127.0.0.1:{port}")
    for replica in brokers.replicas:
        await replica.saw("broker_started")
        await brokers.until_ready(replica)
    of_web, *customers = [new_customer(brokers.sandbox) for _ in range(5)]
    for customer in customers:
        await connect(brokers, brokers.replicas[0], customer)
    address = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    of_application, *of_callers = customers
    application = Application(
        address=address, api=brokers.sandbox.url, tenant=of_application.tenant
    )
    async with channel_to(address) as channel:
        callers = Callers(
            tokens=TokenServiceStub(channel), tenants=[each.tenant for each in of_callers]
        )
        web = WebTier(grants=GrantServiceStub(channel), brokers=brokers, customer=of_web)
        rolling = Rolling(
            brokers=brokers,
            ports=ports,
            customers=of_callers,
            callers=callers,
            application=application,
            web=web,
        )
        loads = (
            callers.call,
            callers.watch,
            application.work,
            application.work_in_jobs,
            web.work,
        )
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(load(), name="load") for load in loads]
            await rolling.until_called(brokers.replicas)
            yield rolling
            for load in working:
                load.cancel()


def channel_to(address: str) -> grpc.aio.Channel:
    """Opens a channel that has the recommended config, and nothing else that callers may lack."""
    options = [
        ("grpc.service_config", recommended_config()),
        ("grpc.use_local_subchannel_pool", 1),
        # So that the test waits no longer than the broker's start.
        ("grpc.max_reconnect_backoff_ms", 500),
    ]
    return grpc.aio.insecure_channel(address, options)
