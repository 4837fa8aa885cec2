"""A service that calls Pleo's API while the stores of the brokers fail, and the brokers themselves.

It is never shown a 401. Where it cannot be given a token it is told why, by type, and it goes on by
itself when that is over. One service asks the brokers, another one watches too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from broker.client import StoreUnavailable, TokenClient
from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from broker.sandbox.faults import Substitute
from broker.sandbox.oauth import Answer
from broker.v1.operations_service_pb2 import RefreshGrantRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from support.consumer import Consumer, consuming
from support.fleet import PATIENCE_SECONDS, Fleet, fleet_of_a_module, until_true
from support.onboarding import Customer, connect, get, grant_of, new_customer
from support.proxy import Proxy, postgres_proxy, redis_proxy
from support.replica import Replica
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIFE = 15 * 60.0
"""Seconds of a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The brokers, the ways to their stores, and services with the customers that they are for."""

    brokers: Fleet
    postgres: Proxy
    redis: Proxy
    settings: dict[str, str]
    ports: tuple[int, int]
    services: list[tuple[Customer, Consumer]]

    @property
    def consumers(self) -> list[Consumer]:
        return [consumer for _, consumer in self.services]

    @property
    def targets(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]

    async def start(self, port: int) -> None:
        address = f"127.0.0.1:{port}"
        await self.brokers.started(BROKER_GRPC_ADDRESS=address, **self.settings)

    async def all_go_on(self) -> None:
        """Waits for some more answers of the API to each."""
        enough = [each.answers.total() + 5 for each in self.consumers]
        await until(
            lambda: all(
                each.answers.total() >= count
                for each, count in zip(self.consumers, enough, strict=True)
            )
        )

    async def all_is_well(self) -> None:
        """Waits until each broker reaches PostgreSQL again, and each service has a lease."""
        for replica in self.brokers.replicas:
            await until_true(lambda: reaches_postgresql(replica, self.services[0][0]))  # noqa: B023 - awaited here
        await until(
            lambda: all(service.client.cached(each.tenant) for each, service in self.services)
        )

    def let_leases_end(self) -> None:
        for each in self.consumers:
            each.clock.ahead += LIFE

    async def all_are_told(self, failure: str, *, more_than: int = 0) -> None:
        """Waits until each has been told so."""
        await until(lambda: all(each.failures[failure] > more_than for each in self.consumers))

    def reject_once(self) -> None:
        """Has Pleo's API answer 401 to the next request for each customer."""
        for customer, _ in self.services:
            self.brokers.sandbox.faults.add(
                Substitute(answer=Answer(status=401)), endpoint="api", company=customer.company
            )


async def reaches_postgresql(replica: Replica, customer: Customer) -> bool:
    try:
        return bool(await grant_of(replica, customer.tenant))
    except grpc.aio.AioRpcError:
        return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Scene]:
    stores = (database_server, migrated_template, redis_server)
    async with AsyncExitStack() as opened:
        enter = opened.enter_async_context
        brokers = await enter(fleet_of_a_module(*stores, run=run))
        postgres, database_url = await enter(postgres_proxy(brokers.serving_url))
        redis, redis_url = await enter(redis_proxy(brokers.redis_url))
        scene = Scene(
            brokers=brokers,
            postgres=postgres,
            redis=redis,
            settings={"BROKER_DATABASE_URL": database_url, "BROKER_REDIS_URL": redis_url},
            ports=(free_port(), free_port()),
            services=[],
        )
        for port in scene.ports:
            await scene.start(port)
        for watch in (False, True):
            scene.services.append(await enter_service(scene, opened, watch=watch))
        await scene.all_go_on()
        yield scene


async def enter_service(
    scene: Scene, opened: AsyncExitStack, *, watch: bool
) -> tuple[Customer, Consumer]:
    customer, brokers = new_customer(scene.brokers.sandbox), scene.brokers
    await connect(brokers, brokers.replicas[0], customer)
    for each in brokers.replicas:  # so that both have it in memory
        await get(each.tokens, customer.tenant)
    service = consuming(
        scene.targets,
        tenant=customer.tenant,
        api_url=brokers.sandbox.url,
        watch=watch,
        pause=0.02,
    )
    return customer, await opened.enter_async_context(service)


@pytest.fixture(autouse=True)
def no_401_is_shown(scene: Scene) -> Iterator[None]:
    for each in scene.consumers:
        each.answers.clear()
        each.failures.clear()
    yield
    scene.brokers.tell()
    for each in scene.consumers:
        assert set(each.answers) == {200}
        assert not each.left


async def test_without_postgresql_what_is_in_memory_serves_and_the_rest_is_told(
    scene: Scene,
) -> None:
    cold, (first, second) = new_customer(scene.brokers.sandbox), scene.brokers.replicas
    await connect(scene.brokers, first, cold)
    async with TokenClient(second.target) as client:
        scene.postgres.refuse()
        scene.postgres.cut()
        scene.let_leases_end()
        await scene.all_go_on()
        assert not any(each.failures for each in scene.consumers)

        with pytest.raises(StoreUnavailable) as told:
            await client.get(cold.tenant)
        scene.reject_once()
        await scene.all_are_told("StoreUnavailable UNAVAILABLE")

        await scene.postgres.accept()

        async def is_served() -> bool:
            try:
                return bool(await client.get(cold.tenant))
            except StoreUnavailable:
                return False

        await until_true(is_served)
    await scene.all_go_on()
    await scene.all_is_well()
    assert told.value.retry_after is not None
    assert {name for each in scene.consumers for name in each.failures} == {
        "StoreUnavailable UNAVAILABLE"
    }


async def test_without_redis_a_rotation_by_hand_is_noticed_by_nobody(scene: Scene) -> None:
    first = scene.brokers.replicas[0]
    operations = OperationsServiceStub(first.channel())
    scene.redis.refuse()
    scene.redis.cut()
    before = scene.brokers.sandbox.record.counts()

    for customer, consumer in scene.services:
        generation = (await grant_of(first, customer.tenant)).generation
        request = RefreshGrantRequest(tenant=customer.tenant, reason="the test says so")
        await operations.RefreshGrant(request, timeout=PATIENCE_SECONDS)
        await until(lambda: uses_newer(consumer, customer, generation))  # noqa: B023 - awaited here
    await scene.all_go_on()

    await scene.redis.accept()
    await scene.all_is_well()
    counts = scene.brokers.sandbox.record.counts()
    assert counts.presentations - before.presentations == len(scene.services)
    assert counts.presentations_of_superseded == 0
    assert [each.failures for each in scene.consumers] == [Counter(), Counter()]


def uses_newer(consumer: Consumer, customer: Customer, generation: int) -> bool:
    at_hand = consumer.client.cached(customer.tenant)
    return at_hand is not None and at_hand.generation > generation


async def test_brokers_that_are_killed_are_missed_when_leases_end_and_taken_up_again(
    scene: Scene,
) -> None:
    running = [each for each in scene.brokers.replicas if each.status is None]
    for each in running:
        each.kill()
        await each.hang_up()
    await scene.all_go_on()
    assert not any(each.failures for each in scene.consumers)

    scene.reject_once()
    await scene.all_are_told("BrokerUnreachable UNAVAILABLE")
    scene.let_leases_end()
    for port in scene.ports:
        await scene.start(port)
    await scene.all_go_on()

    assert {name for each in scene.consumers for name in each.failures} == {
        "BrokerUnreachable UNAVAILABLE"
    }
