"""How soon a watcher of many tenants has a token after Pleo issued it to another broker.

From the sandbox's answer, over commit, announcement, the other broker's look and its stream, to the
caller. What is compared are the medians with so many subscriptions in the stream and with one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final, TypeAlias

import grpc.aio

from bench.figures import Figure, Pair, Step
from bench.filling import fill, tenant_number
from broker.dev.rundir import run_directory
from broker.dev.servers import postgres_server, valkey_server
from broker.store.migrate import migrate
from broker.store.sealing import Keyring
from broker.v1.operations_service_pb2 import RefreshGrantRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from broker.v1.token_service_pb2 import WatchAccessTokensRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub
from support.fleet import Fleet, fleet, until_true
from support.onboarding import Customer, connect, new_customer

if TYPE_CHECKING:
    from broker.v1.token_service_pb2 import WatchAccessTokensResponse

_SIZES: Final = (1, 1_000, 10_000)
"""Subscriptions; the last is the most that one stream may have."""

_ROTATIONS: Final = 10
"""Of the watched tenant, in one half of a pair."""

_IN_ONE_MESSAGE: Final = 1000

_SECONDS: Final = 600.0
"""For whatever is waited for: all states of so many subscriptions take a busy machine minutes."""


Stream: TypeAlias = "grpc.aio.StreamStreamCall[WatchAccessTokensRequest, WatchAccessTokensResponse]"


@dataclass(slots=True, kw_only=True)
class _Watcher:
    """A stream, and when it told which generation of the customer."""

    brokers: Fleet
    customer: Customer
    stream: Stream
    told_at: dict[int, float] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    spent: list[float] = field(default_factory=list)

    async def read(self) -> None:
        """Reads until the stream is cancelled."""
        with suppress(asyncio.CancelledError):
            async for told in self.stream:
                self._take(told)

    def _take(self, told: WatchAccessTokensResponse) -> None:
        if told.tenant == self.customer.tenant:
            self.told_at[told.token.generation] = time.perf_counter()
        elif told.tenant:
            self.others.add(told.tenant)

    async def rotate(self) -> float:
        """Has the token rotated at the other broker; returns the seconds until it was told."""
        brokers, generation = self.brokers, max(self.told_at) + 1
        finished = brokers.sandbox.room.progress.finished + 1
        operations = OperationsServiceStub(brokers.replicas[0].first_channel)
        request = RefreshGrantRequest(tenant=self.customer.tenant, reason="a measurement")
        call = operations.RefreshGrant(request, timeout=_SECONDS)
        await brokers.sandbox.until(finished=finished)
        issued_at = time.perf_counter()
        await call

        async def is_told() -> bool:
            return generation in self.told_at

        await until_true(is_told, seconds=_SECONDS)
        self.spent.append(max(self.told_at[generation] - issued_at, 0.0))
        return self.spent[-1]

    async def seconds(self) -> float:
        """Returns the median of some rotations."""
        return median([await self.rotate() for _ in range(_ROTATIONS)])

    def words(self) -> str:
        """Returns all that was measured, in words."""
        cuts = quantiles([1000 * each for each in self.spent], n=100, method="inclusive")
        return f"{len(self.others) + 1:,}: {cuts[49]:.1f} and {cuts[98]:.1f} ms"


async def told_of_a_rotation(pairs: int, step: Step, *, sizes: Sequence[int] = _SIZES) -> Figure:
    """Measures it with these numbers of subscriptions, in turn."""
    found: list[Pair] = []
    async with _brokers(most=sizes[-1]) as brokers, asyncio.TaskGroup() as tasks:
        watchers = {size: await _watching(brokers, size, tasks) for size in sizes}
        for number in range(pairs):
            # The order turns.
            order = sizes if number % 2 else sizes[::-1]
            took = {size: await watchers[size].seconds() for size in order}
            found.append(Pair(value=took[sizes[-1]], baseline=took[sizes[0]]))
            step()
        for each in watchers.values():
            each.stream.cancel()
    return Figure(
        name=f"a rotation told of, of {sizes[-1]:,} subscriptions",
        baseline=f"of {sizes[0]:,}",
        unit="seconds",
        aim=1.5,
        is_floor=False,
        pairs=tuple(found),
        note=f"median and p99 of {'; '.join(each.words() for each in watchers.values())}",
    )


@asynccontextmanager
async def _brokers(*, most: int) -> AsyncIterator[Fleet]:
    """Runs two on real servers, with grants enough."""
    with run_directory() as run:
        async with postgres_server(run) as postgres, valkey_server(run) as valkey:
            await migrate(postgres.url)
            async with fleet(postgres.url, valkey.url, run) as brokers:
                keyring = Keyring.from_file(brokers.directory / "keyset.json")
                await fill(postgres.url, keyring, count=most - 1, told=lambda _: None)
                await brokers.start(2, BROKER_LOG_LEVEL="info")
                yield brokers


async def _watching(brokers: Fleet, size: int, tasks: asyncio.TaskGroup) -> _Watcher:
    """Watches a customer and filled grants at the second broker, and knows how all stand."""
    acting, telling = brokers.replicas
    customer = new_customer(brokers.sandbox)
    await connect(brokers, acting, customer)
    stream = TokenServiceStub(telling.channel()).WatchAccessTokens()
    watcher = _Watcher(brokers=brokers, customer=customer, stream=stream)
    tenants = [customer.tenant, *map(tenant_number, range(size - 1))]
    for first in range(0, size, _IN_ONE_MESSAGE):
        some = tenants[first : first + _IN_ONE_MESSAGE]
        subscribed = WatchAccessTokensRequest.Subscribe(tenants=some)
        await stream.write(WatchAccessTokensRequest(subscribe=subscribed))
    tasks.create_task(watcher.read(), name=f"reads {size}")

    async def knows() -> bool:
        return bool(watcher.told_at) and len(watcher.others) == size - 1

    await until_true(knows, seconds=_SECONDS)
    await watcher.rotate()
    watcher.spent.clear()
    return watcher
