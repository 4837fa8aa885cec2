"""A customer who left, and a client that Pleo refuses: who is told what, and what stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest

from broker.v1.grant_service_pb2 import Grant
from support.fleet import Fleet, until_true
from support.onboarding import (
    Customer,
    all_of,
    connect,
    expire,
    get,
    grant_of,
    new_customer,
    stubs_of,
)
from support.rpc import PUSHBACK, Failure, failure_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def expired(brokers: Fleet) -> Customer:
    """Returns a connected tenant that the next caller's call refreshes."""
    customer, first = new_customer(brokers.sandbox), brokers.replicas[0]
    await connect(brokers, first, customer)
    await expire(brokers, customer.tenant, known_to=first)
    return customer


async def disconnected(brokers: Fleet) -> tuple[Customer, Failure]:
    """Returns a tenant whose company has left, and what the first caller was told."""
    customer = await expired(brokers)
    brokers.sandbox.server.disconnect(company=customer.company)
    return customer, await failure_of(get(brokers.replicas[0].tokens, customer.tenant))


async def test_a_customer_who_disconnected_must_consent_again(two: Fleet) -> None:
    customer, failure = await disconnected(two)

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.message.startswith("REAUTH_REQUIRED")
    assert failure.error_info.reason == "REAUTH_REQUIRED"
    assert PUSHBACK not in failure.trailers
    metadata = dict(failure.error_info.metadata)
    since = datetime.fromisoformat(metadata.pop("since"))
    assert timedelta() <= datetime.now(UTC) - since < timedelta(minutes=1)
    assert metadata == {
        "tenant": customer.tenant,
        "cause": "EXPIRED_OR_REVOKED",
        "generation": "1",
    }


async def test_a_dead_grant_is_not_presented_again(two: Fleet) -> None:
    customer, first = await disconnected(two)

    calls = [
        failure_of(get(stub, customer.tenant))
        for stub in stubs_of(two.replicas, each=2)
        for _ in range(250)
    ]
    failures = await all_of(calls)

    assert {each.error_info.reason for each in failures} == {"REAUTH_REQUIRED"}
    assert {each.error_info.metadata["since"] for each in failures} == {
        first.error_info.metadata["since"]
    }
    assert two.sandbox.record.counts(customer.company).presentations == 1


async def test_a_new_consent_brings_the_tenant_back_everywhere(two: Fleet) -> None:
    customer, _ = await disconnected(two)
    first, second = two.replicas[:2]

    grant = await connect(two, second, customer)

    assert (grant.state, grant.generation) == (Grant.STATE_ACTIVE, 2)
    assert not grant.HasField("reauth")
    answers = [await get(each.tokens, customer.tenant) for each in (first, second)]
    assert {each.generation for each in answers} == {2}
    assert two.sandbox.record.counts(customer.company).presentations == 1


async def test_a_wrong_client_secret_leaves_every_grant_as_it_was(two: Fleet) -> None:
    customer, right = await expired(two), two.replicas[0]
    wrong = await two.started(BROKER_PLEO_CLIENT_SECRET="not-the-secret")

    failure = await failure_of(get(wrong.tokens, customer.tenant))

    assert failure.code is grpc.StatusCode.INTERNAL
    assert failure.error_info.reason == "PROVIDER_REJECTED_CLIENT"
    grant = await grant_of(right, customer.tenant)
    assert (grant.state, grant.generation) == (Grant.STATE_ACTIVE, 1)
    await until_served(two, customer)
    counts = two.sandbox.record.counts(customer.company)
    assert (counts.rotations, counts.presentations_of_superseded) == (1, 0)


async def until_served(brokers: Fleet, customer: Customer) -> None:
    """Waits until a broker with the right secret serves: a refusal has its pause."""

    async def is_served() -> bool:
        try:
            answer = await get(brokers.replicas[0].tokens, customer.tenant)
        except grpc.aio.AioRpcError as error:
            assert (error.details() or "").startswith("PROVIDER_REJECTED_CLIENT")  # noqa: PT017
            return False
        return answer.generation == 2

    await until_true(is_served)
