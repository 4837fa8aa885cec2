"""Pleo refuses everybody, or our client: what callers are told, and that no customer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import grpc
import pytest

from broker.dev.rundir import RunDirectory
from broker.sandbox.faults import Hold, refuse
from broker.v1.grant_service_pb2 import Grant
from support.cli import started
from support.fleet import Fleet, fleet, until_true
from support.onboarding import (
    Customer,
    all_of,
    connect,
    execute,
    expire,
    get,
    grant_of,
    grants_at,
    new_customer,
)
from support.replica import Replica
from support.rpc import PUSHBACK, Failure, failure_of

MANY: Final = 7
"""More than the five from which the guard holds."""

REFUSALS_OF_OLD: Final = """
    UPDATE grants SET reauth_since = reauth_since - interval '1 minute',
    version = version + 1, changed_xid = pg_current_xact_id()
    WHERE state = 'HELD'
"""
"""Longer ago than any holder of a newer pair would need to store it."""


@pytest.fixture
async def brokers(database_url: str, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    """Two brokers."""
    async with fleet(database_url, redis_url, run) as made:
        await made.start(2)
        yield made


@pytest.fixture(autouse=True)
def told(brokers: Fleet) -> Iterator[None]:
    """What the brokers said, where a test fails."""
    yield
    brokers.tell()


async def expired(brokers: Fleet, count: int = MANY) -> list[Customer]:
    """Returns connected tenants that their next callers' calls refresh."""
    customers, first = [new_customer(brokers.sandbox) for _ in range(count)], brokers.replicas[0]
    await all_of(connect(brokers, first, each) for each in customers)
    await expire(brokers, *(each.tenant for each in customers), known_to=first)
    return customers


def refuse_refreshes(brokers: Fleet, *, times: int | None) -> None:
    brokers.sandbox.faults.add(refuse("invalid_grant"), times=times, grant_type="refresh_token")


async def failures_of(brokers: Fleet, customers: Sequence[Customer]) -> list[Failure]:
    """Asks every broker for the token of each, and gets none."""
    return await all_of(
        failure_of(get(replica.tokens, each.tenant))
        for replica in brokers.replicas
        for each in customers
    )


def reasons(failures: Sequence[Failure]) -> set[str]:
    return {each.error_info.reason for each in failures}


async def until_told(brokers: Fleet, customers: Sequence[Customer], reason: str) -> None:
    """Waits until every broker says the same of each."""

    async def are_told() -> bool:
        return reasons(await failures_of(brokers, customers)) == {reason}

    await until_true(are_told)


async def held(brokers: Fleet) -> list[Customer]:
    """Returns tenants that the guard holds, and whose canary was refused too."""
    customers = await expired(brokers)
    refuse_refreshes(brokers, times=None)
    await failures_of(brokers, customers)
    await brokers.sandbox.until(finished=2 * MANY + 1)  # the codes, the tokens, the canary's again
    await until_told(brokers, customers, "GRANT_HELD")
    return customers


async def decide(replica: Replica, decision: str) -> dict[str, Any]:
    """Decides as on-call does, from the command line."""
    environ = {"BROKER_ADDRESS": replica.target}
    arguments = ("guard", decision, "--reason", "OPS-17", "--json")
    async with started(*arguments, environ=environ) as command:
        ended = await command.end()
    assert (ended.status, ended.stderr) == (0, "")
    document: dict[str, Any] = ended.document
    return document


async def assert_all_served(brokers: Fleet, customers: Sequence[Customer]) -> None:
    answers = await all_of(
        get(replica.tokens, each.tenant) for replica in brokers.replicas for each in customers
    )
    assert {(each.generation, each.degraded) for each in answers} == {(2, False)}
    counts = brokers.sandbox.record.counts()
    assert (counts.rotations, counts.presentations_of_superseded) == (len(customers), 0)


async def test_many_refusals_at_once_send_nobody_to_consent_again(brokers: Fleet) -> None:
    customers = await held(brokers)

    failures = await failures_of(brokers, customers)

    assert {each.code for each in failures} == {grpc.StatusCode.UNAVAILABLE}
    assert {each.trailers[PUSHBACK] for each in failures} == {"-1"}
    shown = [await grant_of(brokers.replicas[1], each.tenant) for each in customers]
    assert {each.state for each in [*shown, *await grants_at(brokers.replicas[0])]} == {
        Grant.STATE_ACTIVE
    }
    assert not any(each.HasField("reauth") for each in shown)
    assert not any(each.seen("loop_failed") for each in brokers.replicas)
    counts = [brokers.sandbox.record.counts(each.company).presentations for each in customers]
    assert sorted(counts) == [1] * (MANY - 1) + [2]


async def test_a_discarded_hold_gives_every_tenant_its_token(brokers: Fleet) -> None:
    customers, second = await held(brokers), brokers.replicas[1]
    brokers.sandbox.faults.clear()

    decided = await decide(second, "discard")

    assert decided == {"released_count": str(MANY), "remaining_count": "0"}
    await assert_all_served(brokers, customers)
    moved = await second.saw("guard_moved", state="DISCARDING")
    assert (moved["by"], moved["reason"]) == ("anonymous", "OPS-17")
    for replica in brokers.replicas:
        await replica.saw("guard_moved", state="WATCHING")


async def test_a_canary_that_rotates_ends_the_hold_by_itself(brokers: Fleet) -> None:
    customers = await expired(brokers)
    refuse_refreshes(brokers, times=MANY)

    await failures_of(brokers, customers)

    for replica in brokers.replicas:
        moved = await replica.saw("guard_moved", state="WATCHING")
        assert moved["by"] == ""
    await assert_all_served(brokers, customers)


async def test_a_confirmed_hold_can_be_taken_back(brokers: Fleet) -> None:
    customers, first = await held(brokers), brokers.replicas[0]

    confirmed = await decide(first, "confirm")
    await execute(brokers.database_url, REFUSALS_OF_OLD)
    await until_told(brokers, customers, "REAUTH_REQUIRED")
    shown = await grants_at(first)
    brokers.sandbox.faults.clear()
    discarded = await decide(first, "discard")

    assert confirmed == {"released_count": "0", "remaining_count": str(MANY)}
    assert {each.state for each in shown} == {Grant.STATE_REAUTH_REQUIRED}
    assert {each.reauth.cause for each in shown} == {Grant.Reauth.CAUSE_EXPIRED_OR_REVOKED}
    assert discarded == {"released_count": str(MANY), "remaining_count": "0"}
    await assert_all_served(brokers, customers)


async def test_a_few_customers_who_leave_are_believed(brokers: Fleet) -> None:
    customers = await expired(brokers, 4)
    refuse_refreshes(brokers, times=None)

    await failures_of(brokers, customers)

    await until_told(brokers, customers, "REAUTH_REQUIRED")
    assert brokers.sandbox.record.counts().presentations == len(customers)
    assert not any(each.seen("guard_moved") for each in brokers.replicas)


async def until_rotated(brokers: Fleet, customer: Customer) -> None:
    """Asks again and again, until there is a new token."""

    async def is_rotated() -> bool:
        try:
            answer = await get(brokers.replicas[0].tokens, customer.tenant)
        except grpc.aio.AioRpcError as error:
            assert (error.details() or "").startswith("PROVIDER_REJECTED_CLIENT")  # noqa: PT017
            return False
        return answer.generation == 2

    await until_true(is_rotated)


async def test_while_our_client_is_refused_one_probe_asks_for_all(brokers: Fleet) -> None:
    unlucky, probing, *others = await expired(brokers)
    faults = brokers.sandbox.faults
    faults.add(refuse("invalid_client", status=401), grant_type="refresh_token")
    faults.add(Hold(), grant_type="refresh_token")  # mended, as the probe will find

    (first,) = await all_of([failure_of(get(brokers.replicas[0].tokens, unlucky.tenant))])
    for replica in brokers.replicas:
        await replica.saw("breaker_moved", cause="CLIENT_REJECTED", code="invalid_client")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(until_rotated(brokers, probing), name="probe")
        await brokers.sandbox.until(held=1)
        failures = await failures_of(brokers, others)
        sent = [brokers.sandbox.record.counts(each.company).presentations for each in others]
        brokers.sandbox.release()

    assert reasons([first, *failures]) == {"PROVIDER_REJECTED_CLIENT"}
    assert sent == [0] * len(others)
    for replica in brokers.replicas:
        await replica.saw("breaker_moved", cause="")
    await until_rotated(brokers, unlucky)
    await assert_all_served(brokers, [unlucky, probing, *others])
