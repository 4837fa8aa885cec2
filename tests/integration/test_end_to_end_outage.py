"""PostgreSQL goes away between Pleo's rotation and our commit: the pair is served and kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory
from broker.sandbox.faults import Hold
from broker.store.migrate import migrate
from broker.v1 import token_service_pb2
from support.fleet import Fleet, fleet
from support.onboarding import Customer, connect, expire, get, new_customer
from support.replica import Replica

Answer = token_service_pb2.GetAccessTokenResponse


@pytest.fixture
async def brokers(
    own_postgres: EmbeddedServer, redis_url: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """A fleet on a PostgreSQL that the test may stop."""
    await migrate(own_postgres.url)
    async with fleet(own_postgres.url, redis_url, run) as made:
        yield made


@pytest.fixture(autouse=True)
def told(brokers: Fleet) -> Iterator[None]:
    yield
    brokers.tell()


async def caught_out(
    brokers: Fleet, replica: Replica, postgres: EmbeddedServer
) -> tuple[Customer, asyncio.Task[Answer]]:
    """A refresh that Pleo has honoured, and whose pair PostgreSQL is not there to take."""
    customer = new_customer(brokers.sandbox)
    await connect(brokers, replica, customer)
    await expire(brokers, customer.tenant, known_to=replica)
    brokers.sandbox.faults.add(
        Hold(when="after"), grant_type="refresh_token", company=customer.company
    )
    call = asyncio.ensure_future(get(replica.tokens, customer.tenant))
    await brokers.sandbox.until(held=1)
    await postgres.kill()
    brokers.sandbox.release()
    await replica.saw("escrow_written", tenant=customer.tenant, is_acknowledged=True)
    return customer, call


def presentations(brokers: Fleet, customer: Customer) -> tuple[int, int]:
    counts = brokers.sandbox.record.counts(customer.company)
    return counts.presentations, counts.presentations_of_superseded


async def test_the_new_token_is_served_degraded_until_it_is_stored(
    brokers: Fleet, own_postgres: EmbeddedServer
) -> None:
    one = await brokers.started()
    customer, call = await caught_out(brokers, one, own_postgres)

    first = await call
    during = await get(one.tokens, customer.tenant)
    await own_postgres.start()
    await one.saw("attempt_settled", tenant=customer.tenant, count=2)
    after = await get(one.tokens, customer.tenant)

    assert [first.degraded, during.degraded, after.degraded] == [True, True, False]
    assert {first.access_token, during.access_token} == {after.access_token}
    assert presentations(brokers, customer) == (1, 0)


async def test_a_replica_adopts_what_a_killed_one_could_not_store(
    brokers: Fleet, own_postgres: EmbeddedServer
) -> None:
    one, two = await brokers.start(2)
    customer, call = await caught_out(brokers, one, own_postgres)
    issued = await call

    one.kill()
    brokers.replicas.remove(one)
    await own_postgres.start()
    await two.saw("escrow_adopted", tenant=customer.tenant)

    got = await get(two.tokens, customer.tenant)
    assert (got.access_token, got.generation, got.degraded) == (issued.access_token, 2, False)
    assert presentations(brokers, customer) == (1, 0)


async def test_a_broker_may_stop_when_its_pair_lies_in_escrow(
    brokers: Fleet, own_postgres: EmbeddedServer
) -> None:
    one = await brokers.started()
    customer, call = await caught_out(brokers, one, own_postgres)
    issued = await call
    await one.hang_up()

    one.terminate()
    assert await one.ended() == 0
    await own_postgres.start()
    two = await brokers.started()
    await two.saw("escrow_adopted", tenant=customer.tenant)

    assert (await get(two.tokens, customer.tenant)).access_token == issued.access_token
    assert presentations(brokers, customer) == (1, 0)
