"""Consents as web tiers complete them: whose session, once, reloaded, denied, and of whom."""

from __future__ import annotations

import secrets
from dataclasses import replace

import grpc
import pytest

from broker.sandbox.faults import Hold
from broker.v1.grant_service_pb2 import Grant
from support.fleet import Fleet
from support.onboarding import (
    Customer,
    Returned,
    all_of,
    complete,
    connect,
    get,
    grant_of,
    grants_at,
    new_company,
    revoke,
    visit,
)
from support.replica import Replica
from support.rpc import PUSHBACK, Failure, failure_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


def exchanges(brokers: Fleet, customer: Customer) -> int:
    return brokers.sandbox.record.counts(customer.company).exchanges


def in_another_session(returned: Returned) -> Returned:
    return replace(returned, binding=secrets.token_bytes(32))


def reason_of(failure: Failure) -> str:
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert PUSHBACK not in failure.trailers
    return failure.error_info.reason


async def test_a_link_opened_in_another_session_connects_nobody(
    two: Fleet, first: Replica, customer: Customer
) -> None:
    returned = await visit(two, first, customer)

    failure = await failure_of(complete(first, in_another_session(returned)))

    assert reason_of(failure) == "AUTHORIZATION_STATE_INVALID"
    assert exchanges(two, customer) == 0
    missing = await failure_of(grant_of(first, customer.tenant))
    assert missing.error_info.reason == "TENANT_NOT_FOUND"


async def test_a_state_shown_by_another_session_is_spent_everywhere(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    returned = await visit(two, first, customer)
    await failure_of(complete(first, in_another_session(returned)))

    failure = await failure_of(complete(second, returned))

    assert reason_of(failure) == "AUTHORIZATION_STATE_INVALID"
    assert exchanges(two, customer) == 0


async def test_a_state_of_another_tenant_is_spent(
    two: Fleet, first: Replica, customer: Customer
) -> None:
    returned = await visit(two, first, customer)

    stranger = await failure_of(complete(first, replace(returned, tenant="a-stranger")))
    owner = await failure_of(complete(first, returned))

    assert reason_of(stranger) == reason_of(owner) == "AUTHORIZATION_STATE_INVALID"
    assert exchanges(two, customer) == 0


async def test_a_state_takes_no_second_code(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    returned, other = await visit(two, first, customer), await visit(two, first, customer)
    before = await complete(first, returned)

    failure = await failure_of(complete(second, returned.with_code(other.code)))

    assert reason_of(failure) == "AUTHORIZATION_STATE_INVALID"
    assert exchanges(two, customer) == 1
    assert (await grant_of(second, customer.tenant)) == before


async def test_a_reloaded_page_gets_the_same_grant_from_any_broker(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    returned = await visit(two, first, customer)
    once = await complete(first, returned)

    again = await all_of(complete(each, returned) for each in (first, second) * 5)

    assert once.subject == customer.company
    assert all(each == once for each in again)
    assert exchanges(two, customer) == 1


async def test_pages_reloaded_during_the_exchange_join_it(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    returned = await visit(two, first, customer)
    two.sandbox.faults.add(Hold(), grant_type="authorization_code", company=customer.company)

    async def released() -> None:
        await two.sandbox.until(held=1)
        two.sandbox.release()

    *grants, _ = await all_of(
        [*(complete(each, returned) for each in (first, second) * 5), released()]
    )

    assert {each.generation for each in grants if each is not None} == {1}
    assert exchanges(two, customer) == 1


async def test_a_denied_consent_is_told_and_exchanges_nothing(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    denied = await visit(two, first, customer, is_approved=False)

    failures = [await failure_of(complete(each, denied)) for each in (first, second)]

    assert reason_of(failures[0]) == "CONSENT_DENIED"
    assert failures[0].error_info.metadata["error"] == "access_denied"
    assert reason_of(failures[1]) == "CONSENT_DENIED"
    assert exchanges(two, customer) == 0


async def test_another_company_does_not_replace_the_known_one(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    before = await connect(two, first, customer)
    served = await get(first.tokens, customer.tenant)
    other = replace(customer, company=new_company(two.sandbox))

    failure = await failure_of(connect(two, second, other))

    assert reason_of(failure) == "SUBJECT_MISMATCH"
    assert failure.error_info.metadata["expected"] == customer.company
    assert failure.error_info.metadata["actual"] == other.company
    again = await all_of(get(each.tokens, customer.tenant) for each in (first, second))
    assert {each.access_token for each in again} == {served.access_token}
    assert {each.generation for each in again} == {before.generation}


async def test_a_company_belongs_to_one_tenant_only(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    await connect(two, first, customer)

    failure = await failure_of(connect(two, second, replace(customer, tenant="latecomer")))

    assert reason_of(failure) == "SUBJECT_ALREADY_CONNECTED"
    assert customer.tenant not in str(failure)
    assert (await get(first.tokens, customer.tenant)).generation == 1


async def test_a_company_may_have_several_tenants_where_the_setting_says_so(
    two: Fleet, first: Replica, customer: Customer
) -> None:
    await connect(two, first, customer)
    lenient = await two.started(BROKER_ALLOW_SHARED_SUBJECT="true")
    latecomer = replace(customer, tenant=f"{customer.tenant}-2")

    grant = await connect(two, lenient, latecomer)

    assert (grant.state, grant.subject) == (Grant.STATE_ACTIVE, customer.company)


async def test_a_revoked_grant_is_shown_and_serves_nobody(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    await connect(two, first, customer)
    await all_of(get(each.tokens, customer.tenant) for each in (first, second))

    revoked = await revoke(first, customer.tenant)

    assert (revoked.state, revoked.generation) == (Grant.STATE_REVOKED, 2)
    told = await first.saw("grant_revoked", tenant=customer.tenant)
    assert (told["generation"], told["by"], told["at_provider"]) == (2, "anonymous", False)
    await second.saw("memory_dropped", tenant=customer.tenant)
    failures = await all_of(
        failure_of(get(each.tokens, customer.tenant)) for each in (first, second)
    )
    assert {each.error_info.reason for each in failures} == {"TENANT_NOT_FOUND"}
    assert all("revoked_at" in each.error_info.metadata for each in failures)
    assert await grant_of(second, customer.tenant) == revoked
    assert revoked in await grants_at(second)


async def test_a_revoked_tenant_can_be_connected_again(
    two: Fleet, first: Replica, second: Replica, customer: Customer
) -> None:
    await connect(two, first, customer)
    await revoke(first, customer.tenant)

    again = await connect(two, second, customer)

    assert (again.state, again.generation) == (Grant.STATE_ACTIVE, 3)
    answers = await all_of(get(each.tokens, customer.tenant) for each in (first, second))
    assert {each.generation for each in answers} == {3}
