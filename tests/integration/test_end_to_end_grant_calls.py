"""A web tier's calls whose answers are lost on the way: what deploy/README.md has channels repeat.

A broker that is killed, or a network that breaks, looks like this to callers. Requests arrive, and
what becomes of them nobody is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message

from broker.dev.rundir import RunDirectory
from broker.sandbox.faults import Hold
from broker.v1.grant_service_pb2 import (
    CompleteAuthorizationRequest,
    GetGrantRequest,
    Grant,
    ImportGrantRequest,
    ListGrantsRequest,
    RevokeGrantRequest,
    StartAuthorizationRequest,
)
from broker.v1.grant_service_pb2_grpc import GrantServiceStub
from support.fleet import PATIENCE_SECONDS, Fleet, fleet_of_a_module
from support.onboarding import (
    Customer,
    Returned,
    connect,
    grant_of,
    new_customer,
    tokens_of,
    visit,
)
from support.proxy import Proxy, proxy
from support.replica import Replica
from support.rolling import channel_to
from support.rpc import failure_of
from support.waiting import until

if TYPE_CHECKING:
    from broker.v1.grant_service_pb2_grpc import GrantServiceAsyncStub

T = TypeVar("T")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A web tier, and the line between it and the broker."""

    brokers: Fleet
    line: Proxy
    grants: GrantServiceAsyncStub

    @property
    def replica(self) -> Replica:
        return self.brokers.replicas[0]

    async def loses(self, request: Message, call: Awaitable[T]) -> T:
        """Cuts the line when an answer to this request comes, once; returns what came after all."""
        self.line.lose_answers(loss="cut", asked=request.SerializeToString())
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(awaited(call), name="a call")
            await self.line.answer_lost()
            self.line.heal()
        return answer.result()


async def awaited(call: Awaitable[T]) -> T:
    """A task wants a coroutine."""
    return await call


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def web(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Web]:
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        replica = await brokers.started()
        host, port = replica.target.split(":")
        async with proxy((host, int(port))) as line:
            address = f"ipv4:127.0.0.1:{line.port}"
            async with channel_to(address) as channel:
                yield Web(brokers=brokers, line=line, grants=GrantServiceStub(channel))


def completion(returned: Returned) -> CompleteAuthorizationRequest:
    return CompleteAuthorizationRequest(
        tenant=returned.tenant,
        state=returned.state,
        session_binding=returned.binding,
        code=returned.code,
    )


async def connected(web: Web) -> Customer:
    customer = new_customer(web.brokers.sandbox)
    await connect(web.brokers, web.replica, customer)
    return customer


async def test_reads_and_starts_are_repeated(web: Web) -> None:
    customer = await connected(web)
    found = GetGrantRequest(tenant=customer.tenant)
    listed = ListGrantsRequest(page_size=777)
    started = StartAuthorizationRequest(tenant=customer.tenant, session_binding=b"b" * 16)

    await web.loses(found, web.grants.GetGrant(found, timeout=PATIENCE_SECONDS))
    await web.loses(listed, web.grants.ListGrants(listed, timeout=PATIENCE_SECONDS))
    await web.loses(started, web.grants.StartAuthorization(started, timeout=PATIENCE_SECONDS))


async def test_a_consent_is_completed_once_where_its_answer_is_lost(web: Web) -> None:
    customer = new_customer(web.brokers.sandbox)
    request = completion(await visit(web.brokers, web.replica, customer))

    await web.loses(request, web.grants.CompleteAuthorization(request, timeout=PATIENCE_SECONDS))

    assert (await grant_of(web.replica, customer.tenant)).generation == 1
    assert web.brokers.sandbox.record.counts(customer.company).exchanges == 1


async def test_a_consent_that_is_under_way_is_joined(web: Web) -> None:
    customer, sandbox = new_customer(web.brokers.sandbox), web.brokers.sandbox
    request = completion(await visit(web.brokers, web.replica, customer))
    sandbox.faults.add(Hold(when="after"), company=customer.company)

    async with asyncio.TaskGroup() as tasks:
        call = web.grants.CompleteAuthorization(request, timeout=PATIENCE_SECONDS)
        tasks.create_task(awaited(call), name="a call")
        await sandbox.until(held=1)
        lines = web.line.accepted
        web.line.cut()
        await until(lambda: web.line.accepted > lines)
        sandbox.release()

    assert sandbox.record.counts(customer.company).exchanges == 1


async def test_an_import_is_made_once_where_its_answer_is_lost(web: Web) -> None:
    customer = new_customer(web.brokers.sandbox)
    tokens = await tokens_of(web.brokers.sandbox, customer.company)
    request = ImportGrantRequest(tenant=customer.tenant, refresh_token=tokens["refresh_token"])

    await web.loses(request, web.grants.ImportGrant(request, timeout=PATIENCE_SECONDS))

    assert (await grant_of(web.replica, customer.tenant)).generation == 1
    assert web.brokers.sandbox.record.counts(customer.company).presentations == 1


async def test_a_revocation_is_for_its_caller_to_repeat(web: Web) -> None:
    """A consent may have come since the first try, and would be ended too."""
    request = RevokeGrantRequest(tenant=(await connected(web)).tenant, reason="the test says so")
    call = web.grants.RevokeGrant(request, timeout=PATIENCE_SECONDS)

    failure = await web.loses(request, failure_of(call))

    assert failure.code is grpc.StatusCode.UNAVAILABLE
    again = await web.grants.RevokeGrant(request, timeout=PATIENCE_SECONDS, wait_for_ready=True)
    assert again.grant.state == Grant.STATE_REVOKED
