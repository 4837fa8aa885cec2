"""PostgreSQL fails over to a standby that lacks the last commits: what is remembered comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from broker.dev.rundir import RunDirectory
from broker.store.migrate import migrate
from support.fleet import Fleet, fleet, until_true
from support.onboarding import Customer, connect, expire, get, new_customer
from support.replica import Replica
from support.rpc import failure_of
from support.standby import StandbyPair

SOON = {"BROKER_PLEO_TIMEOUT_SECONDS": "1"}
"""Attempts of 21 s, quarantines of 20 s."""

LONGEST = 80.0
"""Seconds: both of them, and a busy machine."""


@pytest.fixture
async def brokers(pair: StandbyPair, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    await migrate(pair.url)
    async with fleet(pair.url, redis_url, run) as made:
        yield made


@pytest.fixture(autouse=True)
def told(brokers: Fleet) -> Iterator[None]:
    yield
    brokers.tell()


async def some_due(brokers: Fleet, replica: Replica) -> tuple[Customer, Customer]:
    """Two customers whose access tokens are dead."""
    both = new_customer(brokers.sandbox), new_customer(brokers.sandbox)
    for each in both:
        await connect(brokers, replica, each)
    await expire(brokers, *(each.tenant for each in both), known_to=replica)
    return both


def presentations(brokers: Fleet, customer: Customer) -> tuple[int, int]:
    counts = brokers.sandbox.record.counts(customer.company)
    return counts.presentations, counts.presentations_of_superseded


async def until_told(replica: Replica, customer: Customer, reason: str) -> ErrorInfo:
    """Asks for a token until that is the answer."""
    told = ErrorInfo()

    async def is_told() -> bool:
        told.CopyFrom((await failure_of(get(replica.tokens, customer.tenant))).error_info)
        return told.reason == reason

    await until_true(is_told, seconds=LONGEST)
    return told


async def test_a_pair_that_a_failover_loses_is_written_back_by_who_stored_it(
    brokers: Fleet, pair: StandbyPair
) -> None:
    one, two = await brokers.start(2, **SOON)
    kept, lost = await some_due(brokers, one)
    await pair.cut()
    rotated = await get(one.tokens, kept.tenant)
    await get(two.tokens, lost.tenant)
    two.kill()
    brokers.replicas.remove(two)

    await pair.fail_over()
    await one.saw("past_changed")
    await one.saw("written_back", tenant=kept.tenant)
    after = await get(one.tokens, kept.tenant)
    await until_told(one, lost, "STORE_UNAVAILABLE")
    assert presentations(brokers, lost) == (1, 0)
    refused = await until_told(one, lost, "REAUTH_REQUIRED")

    assert (after.access_token, after.generation) == (rotated.access_token, rotated.generation)
    assert presentations(brokers, kept) == (1, 0)
    assert presentations(brokers, lost) == (2, 1)
    assert refused.metadata["cause"] == "ROTATION_LOST"
