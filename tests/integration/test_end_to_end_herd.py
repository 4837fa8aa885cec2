"""Three brokers and a herd of callers: one presentation, and the same token for everybody."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from itertools import cycle, islice

import pytest
import pytest_asyncio

from broker.dev.databases import fresh_database
from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory
from broker.dev.servers import REDIS_VARIABLE, valkey_server
from broker.dev.wheels import WheelMissingError
from broker.sandbox.faults import Hold
from broker.v1.token_service_pb2 import GetAccessTokenResponse
from support.fleet import Fleet, fleet
from support.onboarding import (
    Customer,
    expire,
    get,
    new_customer,
    stubs_of,
    take_over_living,
)
from support.replica import Replica
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLERS = 1000
TENANTS = 50


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def valkey(run: RunDirectory) -> AsyncIterator[EmbeddedServer]:
    """The fleet's own, so that it can be stopped."""
    try:
        async with valkey_server(run, name="herd-valkey", tcp=True) as server:
            yield server
    except WheelMissingError as error:
        if REDIS_VARIABLE in os.environ:
            pytest.skip(f"this module stops its server, so it needs the wheel: {error}")
        raise


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three(
    database_server: str, migrated_template: str, valkey: EmbeddedServer, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """Three brokers."""
    async with (
        fresh_database(database_server, template=migrated_template) as database_url,
        fleet(database_url, valkey.url, run) as brokers,
    ):
        await brokers.start(3)
        yield brokers


@pytest.fixture(autouse=True)
def told(three: Fleet) -> Iterator[None]:
    """What the brokers said, where a test fails."""
    yield
    three.tell()


async def some_expired(brokers: Fleet, count: int) -> list[Customer]:
    """Returns tenants whose access token has expired, and whose refresh token nobody has shown."""
    customers = [new_customer(brokers.sandbox) for _ in range(count)]
    first = brokers.replicas[0]
    await take_over_living(brokers, first, customers)
    await expire(brokers, *(each.tenant for each in customers), known_to=first)
    return customers


async def stampede(brokers: Fleet, customers: list[Customer]) -> list[GetAccessTokenResponse]:
    """Lets a thousand callers ask at once, spread over the tenants and over all brokers.

    Pleo answers only when every broker has been asked for every tenant: a fast answer would spare
    the others the race.
    """
    brokers.sandbox.faults.add(Hold(), times=len(customers), grant_type="refresh_token")
    stubs = cycle(stubs_of(brokers.replicas, each=4))
    asked = islice(cycle(customers), CALLERS)
    async with asyncio.TaskGroup() as tasks:
        calls = [
            tasks.create_task(get(next(stubs), each.tenant), name=each.tenant) for each in asked
        ]
        await until(lambda: all(has_joined(each, customers) for each in brokers.replicas))
        await brokers.sandbox.until(held=len(customers))
        brokers.sandbox.release()
    return [call.result() for call in calls]


def has_joined(replica: Replica, customers: list[Customer]) -> bool:
    flying = {each["tenant"] for each in replica.seen("flight_started")}
    return flying >= {each.tenant for each in customers}


def presentations(brokers: Fleet, customers: list[Customer]) -> list[int]:
    counts = [brokers.sandbox.record.counts(each.company) for each in customers]
    assert {each.presentations_of_superseded for each in counts} == {0}
    return [each.presentations for each in counts]


def tokens_now(brokers: Fleet, customers: list[Customer]) -> set[str]:
    """Returns the access tokens that live at Pleo."""
    ledger = brokers.sandbox.server.realm.ledger
    living = [ledger.living(client_id=None, company=each.company) for each in customers]
    return {grant.current.access_token for (grant,) in living}


async def test_a_thousand_callers_cause_one_presentation(three: Fleet) -> None:
    customers = await some_expired(three, 1)

    answers = await stampede(three, customers)

    assert presentations(three, customers) == [1]
    assert len(answers) == CALLERS
    assert {each.access_token for each in answers} == tokens_now(three, customers)
    assert {each.generation for each in answers} == {2}


async def test_fifty_tenants_at_once_cause_fifty_presentations(three: Fleet) -> None:
    customers = await some_expired(three, TENANTS)

    answers = await stampede(three, customers)

    assert presentations(three, customers) == [1] * TENANTS
    assert {each.access_token for each in answers} == tokens_now(three, customers)
    # Fifty share the rate of all replicas: who waits beyond the patience may get it degraded.
    assert {each.generation for each in answers} == {2}


@pytest.mark.parametrize("count", [1, TENANTS])
async def test_without_valkey_nothing_is_presented_twice_either(
    three: Fleet, valkey: EmbeddedServer, count: int
) -> None:
    customers = await some_expired(three, count)
    await valkey.stop()

    try:
        answers = await stampede(three, customers)
    finally:
        await valkey.start()

    assert presentations(three, customers) == [1] * count
    assert {each.access_token for each in answers} == tokens_now(three, customers)
    assert {each.generation for each in answers} == {2}
