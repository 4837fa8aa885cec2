"""Refresh tokens that come from elsewhere: presented once, whoever repeats the import."""

from __future__ import annotations

import grpc
import pytest
import pytest_asyncio

from broker.v1.grant_service_pb2 import Grant
from support.fleet import Fleet
from support.onboarding import (
    Customer,
    all_of,
    connect,
    get,
    grant_of,
    revoke,
    take_over,
    tokens_of,
)
from support.replica import Replica
from support.rpc import PUSHBACK, failure_of
from support.sandbox_client import Tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def tokens(two: Fleet, customer: Customer) -> Tokens:
    """What another integration has been given for that customer's company."""
    return await tokens_of(two.sandbox, customer.company)


def presentations(brokers: Fleet, customer: Customer) -> int:
    return brokers.sandbox.record.counts(customer.company).presentations


async def test_an_import_repeated_anywhere_presents_once(
    two: Fleet, first: Replica, second: Replica, customer: Customer, tokens: Tokens
) -> None:
    once = await take_over(first, customer.tenant, tokens)

    again = [await take_over(each, customer.tenant, tokens) for each in (first, second)]

    assert (once.generation, once.subject) == (1, customer.company)
    assert again == [once, once]
    assert presentations(two, customer) == 1


async def test_imports_at_the_same_time_present_once(
    two: Fleet, first: Replica, second: Replica, customer: Customer, tokens: Tokens
) -> None:
    grants = await all_of(take_over(each, customer.tenant, tokens) for each in (first, second) * 5)

    assert {each.generation for each in grants} == {1}
    assert presentations(two, customer) == 1
    answers = await all_of(get(each.tokens, customer.tenant) for each in (first, second))
    assert {each.generation for each in answers} == {1}


async def test_a_living_access_token_spares_the_presentation(
    two: Fleet, first: Replica, second: Replica, customer: Customer, tokens: Tokens
) -> None:
    grant = await take_over(first, customer.tenant, tokens, is_living=True)

    assert (grant.state, grant.subject) == (Grant.STATE_ACTIVE, customer.company)
    answers = await all_of(get(each.tokens, customer.tenant) for each in (first, second))
    assert {each.access_token for each in answers} == {tokens["access_token"]}
    assert presentations(two, customer) == 0


async def test_an_active_grant_is_not_replaced_unasked(
    two: Fleet, first: Replica, second: Replica, customer: Customer, tokens: Tokens
) -> None:
    before = await connect(two, first, customer)

    failure = await failure_of(take_over(second, customer.tenant, tokens))

    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.error_info.reason == "INVALID_REQUEST"
    assert list(failure.violations) == ["replace"]
    assert await grant_of(second, customer.tenant) == before
    assert presentations(two, customer) == 0


async def test_an_active_grant_is_replaced_where_that_is_asked(
    two: Fleet, first: Replica, second: Replica, customer: Customer, tokens: Tokens
) -> None:
    await connect(two, first, customer)

    grant = await take_over(second, customer.tenant, tokens, may=True)

    assert grant.generation == 2
    answers = await all_of(get(each.tokens, customer.tenant) for each in (first, second))
    assert len({each.access_token for each in answers}) == 1
    assert presentations(two, customer) == 1


async def test_a_refused_import_is_not_presented_again(
    two: Fleet, first: Replica, second: Replica, customer: Customer, tokens: Tokens
) -> None:
    two.sandbox.server.disconnect(company=customer.company)

    failures = [
        await failure_of(take_over(each, customer.tenant, tokens)) for each in (first, second)
    ]

    for failure in failures:
        assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
        assert failure.error_info.reason == "REFRESH_TOKEN_REJECTED"
        assert failure.error_info.metadata["error"] == "invalid_grant"
        assert PUSHBACK not in failure.trailers
    assert presentations(two, customer) == 1
    missing = await failure_of(grant_of(second, customer.tenant))
    assert missing.error_info.reason == "TENANT_NOT_FOUND"


async def test_a_token_that_was_rotated_is_refused_after_a_revocation(
    two: Fleet, first: Replica, second: Replica, customer: Customer, tokens: Tokens
) -> None:
    await take_over(first, customer.tenant, tokens)
    await revoke(first, customer.tenant)

    failure = await failure_of(take_over(second, customer.tenant, tokens))

    assert failure.error_info.reason == "REFRESH_TOKEN_REJECTED"
    assert presentations(two, customer) == 1
