"""What callers and signals do to a refresh that is on its way: nothing (laws 3 and 8)."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from broker.sandbox.faults import Hold
from support.fleet import Fleet
from support.onboarding import Customer, all_of, connect, expire, get, grant_of, new_customer
from support.replica import Replica
from support.rpc import failure_of, retry_delay

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def held_customer(brokers: Fleet, replica: Replica) -> Customer:
    """Returns a tenant whose next refresh Pleo honours, and answers when it is told to."""
    customer = new_customer(brokers.sandbox)
    await connect(brokers, replica, customer)
    await expire(brokers, customer.tenant, known_to=replica)
    brokers.sandbox.faults.add(
        Hold(when="after"), grant_type="refresh_token", company=customer.company
    )
    return customer


def presentations(brokers: Fleet, customer: Customer) -> int:
    counts = brokers.sandbox.record.counts(customer.company)
    assert counts.presentations_of_superseded == 0
    return counts.presentations


def token_now(brokers: Fleet, customer: Customer) -> str:
    """Returns the access token that lives at Pleo."""
    ledger = brokers.sandbox.server.realm.ledger
    (grant,) = ledger.living(client_id=None, company=customer.company)
    return grant.current.access_token


async def test_everybody_is_served_after_the_first_caller_left(two: Fleet) -> None:
    first, second = two.replicas[:2]
    customer = await held_customer(two, first)
    async with asyncio.TaskGroup() as tasks:
        leader = tasks.create_task(get(first.tokens, customer.tenant), name="leader")
        await two.sandbox.until(held=1)
        others = [
            tasks.create_task(get(each.tokens, customer.tenant), name="follower")
            for each in [first, second] * 10
        ]
        await second.saw("flight_started", tenant=customer.tenant)

        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        two.sandbox.release()

    assert {each.result().access_token for each in others} == {token_now(two, customer)}
    assert {each.result().generation for each in others} == {2}
    assert presentations(two, customer) == 1


async def test_a_short_deadline_is_told_and_the_refresh_goes_on(two: Fleet) -> None:
    first, second = two.replicas[:2]
    customer = await held_customer(two, first)

    failures = await all_of(
        failure_of(get(each.tokens, customer.tenant, seconds=2)) for each in (first, second)
    )
    assert two.sandbox.release() == 1
    answers = await all_of(get(each.tokens, customer.tenant) for each in (first, second))

    for failure in failures:
        assert failure.code is grpc.StatusCode.UNAVAILABLE
        assert failure.error_info.reason == "REFRESH_IN_PROGRESS"
        assert retry_delay(failure.status) is not None
    assert {each.access_token for each in answers} == {token_now(two, customer)}
    assert presentations(two, customer) == 1


async def test_a_broker_ends_only_once_its_pair_is_stored(two: Fleet) -> None:
    stays = two.replicas[0]
    leaves = await two.started()
    customer = await held_customer(two, stays)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(get(leaves.tokens, customer.tenant), name="caller")
        await two.sandbox.until(held=1)
        leaves.terminate()
        await leaves.saw("broker_draining")
        assert leaves.status is None
        two.sandbox.release()

    assert await leaves.ended() == 0
    answer = await get(stays.tokens, customer.tenant)
    assert (answer.generation, answer.access_token) == (2, token_now(two, customer))
    assert call.result().access_token == answer.access_token
    assert presentations(two, customer) == 1


async def test_a_broker_whose_caller_left_ends_as_well(two: Fleet) -> None:
    stays = two.replicas[0]
    leaves = await two.started()
    customer = await held_customer(two, stays)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(get(leaves.tokens, customer.tenant), name="caller")
        await two.sandbox.until(held=1)
        call.cancel()
    leaves.terminate()
    await leaves.saw("broker_draining", held=1)
    two.sandbox.release()

    assert await leaves.ended() == 0
    assert (await grant_of(stays, customer.tenant)).generation == 2
    assert presentations(two, customer) == 1
