"""A service that calls Pleo's API through whatever happens to its token, and never sees a 401.

Two of them run all the while: one asks the broker, the other watches too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from broker.client import BlockingTokenClient, PleoAuth, ReauthRequired
from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from broker.sandbox.faults import Hold
from broker.v1.operations_service_pb2 import RefreshGrantRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from support.consumer import Consumer, consuming
from support.fleet import PATIENCE_SECONDS, Fleet, fleet_of_a_module, until_true
from support.onboarding import Customer, connect, execute, get, grant_of, new_customer
from support.replica import Replica
from support.rpc import failure_of
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_DUE = """
    UPDATE grants SET renew_at = clock_timestamp() + interval '8 seconds',
    version = version + 1, changed_xid = pg_current_xact_id()
    WHERE tenant = $1
"""

LIFE = 15 * 60.0
"""Seconds of a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A customer, and the service that calls Pleo for them."""

    brokers: Fleet
    customer: Customer
    consumer: Consumer

    @property
    def replicas(self) -> list[Replica]:
        return [each for each in self.brokers.replicas if each.status is None]

    async def generation(self) -> int:
        return (await grant_of(self.replicas[0], self.customer.tenant)).generation

    async def goes_on(self) -> None:
        """Waits for some more answers of the API."""
        enough = self.consumer.answers.total() + 5
        await until(lambda: self.consumer.answers.total() >= enough)

    async def goes_on_with_newer(self, generation: int) -> None:
        """Waits until it uses a newer token than that."""

        def has_newer() -> bool:
            at_hand = self.consumer.client.cached(self.customer.tenant)
            return at_hand is not None and at_hand.generation > generation

        await until(has_newer)
        await self.goes_on()

    async def make_soon_due(self) -> None:
        """Has the token be rotated as planned work within seconds, as both sides know then."""
        calls = self.consumer.calls

        async def knows() -> bool:
            # Once more where either was so slow that the promise was over before it was heard.
            await self._make_soon_due()
            self.consumer.clock.ahead += LIFE
            await self.goes_on()
            return 0 < calls.promise < 8 and calls.took < 0.4

        await until_true(knows)

    async def _make_soon_due(self) -> None:
        for each in self.replicas:
            await get(each.tokens, self.customer.tenant)
        before = [len(each.seen("memory_dropped")) for each in self.replicas]
        await execute(self.brokers.database_url, SOON_DUE, self.customer.tenant)
        for replica, count in zip(self.replicas, before, strict=True):
            await replica.saw("memory_dropped", count=count + 1)


async def answered(call: Awaitable[object]) -> None:
    """Awaits a call; a task wants a coroutine."""
    await call


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brokers(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """Two brokers at addresses that stay where they are replaced."""
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        for _ in range(2):
            await brokers.start(BROKER_GRPC_ADDRESS=f"127.0.0.1:{free_port()}")
        yield brokers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cases(brokers: Fleet) -> AsyncIterator[dict[str, Case]]:
    """Who asks, and who watches; both have a token."""
    found = {}
    async with AsyncExitStack() as opened:
        for name, watch in (("asks", False), ("watches", True)):
            customer = new_customer(brokers.sandbox)
            await connect(brokers, brokers.replicas[0], customer)
            consumer = await opened.enter_async_context(
                consuming(
                    [each.target for each in brokers.replicas],
                    tenant=customer.tenant,
                    api_url=brokers.sandbox.url,
                    watch=watch,
                    pause=0.02,
                )
            )
            found[name] = Case(brokers=brokers, customer=customer, consumer=consumer)
            await found[name].goes_on()
        yield found


@pytest.fixture(params=["asks", "watches"])
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Iterator[Case]:
    """One of them; it must not have seen a 401, whatever happened."""
    case = cases[request.param]
    yield case
    case.brokers.tell()
    assert set(case.consumer.answers) == {200}
    assert not case.consumer.failures


async def test_a_planned_rotation_costs_one_call_and_a_watcher_none(case: Case) -> None:
    await case.make_soon_due()
    calls, before = case.consumer.calls, await case.generation()
    asked, reports = calls.asked, calls.reports

    await case.goes_on_with_newer(before)

    # A machine that stands still may hear of it late; then it is reported, once.
    assert calls.reports - reports <= 1
    plain = calls.asked - asked - (calls.reports - reports)
    assert plain == (0 if case.consumer.is_watching else 1)
    assert await case.generation() == before + 1


async def test_a_forced_rotation_is_told_or_reported_once(case: Case) -> None:
    calls, before = case.consumer.calls, await case.generation()
    asked = calls.asked
    operations = OperationsServiceStub(case.replicas[0].channel())

    request = RefreshGrantRequest(tenant=case.customer.tenant, reason="the test says so")
    await operations.RefreshGrant(request, timeout=PATIENCE_SECONDS)
    await case.goes_on_with_newer(before)

    assert calls.asked - asked <= 1
    assert await case.generation() == before + 1


async def test_a_401_while_a_rotation_is_on_the_wire_is_answered_with_its_token(case: Case) -> None:
    calls, sandbox, replica = case.consumer.calls, case.brokers.sandbox, case.replicas[0]
    before, reports, tenant = await case.generation(), calls.reports, case.customer.tenant
    operations = OperationsServiceStub(replica.channel())
    request = RefreshGrantRequest(tenant=tenant, reason="the test says so")
    sandbox.faults.add(Hold(when="after"), company=case.customer.company)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(answered(operations.RefreshGrant(request)), name="an operator")
        await sandbox.until(held=1)
        await until(lambda: calls.reports > reports)
        # Whoever cannot wait is told so. Then the consumer's report has long been judged.
        hurried = GetAccessTokenRequest(tenant=tenant, rejected_generation=before)
        told = await failure_of(replica.tokens.GetAccessToken(hurried, timeout=1))
        sandbox.release()
    await case.goes_on_with_newer(before)

    assert told.error_info.reason == "REFRESH_IN_PROGRESS"
    assert calls.reports - reports == 1
    assert await case.generation() == before + 1


async def test_a_customer_who_leaves_and_comes_back_costs_two_calls(case: Case) -> None:
    consumer, calls = case.consumer, case.consumer.calls
    before, left, asked = await case.generation(), len(consumer.left), calls.asked
    case.brokers.sandbox.server.disconnect(company=case.customer.company)
    await until(lambda: len(consumer.left) > left)

    await connect(case.brokers, case.replicas[0], case.customer)
    consumer.reconnect()
    await case.goes_on_with_newer(before)

    assert consumer.left[left:] == ["EXPIRED_OR_REVOKED"]
    assert calls.asked - asked == 2


async def test_brokers_are_replaced_one_by_one_and_nobody_notices(cases: dict[str, Case]) -> None:
    asks, watches = cases["asks"], cases["watches"]
    brokers = asks.brokers

    async def ask() -> None:
        for each in (asks, watches):
            each.consumer.clock.ahead += LIFE
            await each.goes_on()

    async def is_asked() -> bool:
        await ask()
        return bool(comes.seen("token_served"))

    for leaves in asks.replicas:
        address = leaves.target
        leaves.terminate()
        await ask()
        assert await leaves.ended() == 0
        # All must come from the other one.
        await ask()
        await leaves.hang_up()
        comes = await brokers.started(BROKER_GRPC_ADDRESS=address)
        await until_true(is_asked)

    for each in (asks, watches):
        assert set(each.consumer.answers) == {200}
        assert not each.consumer.failures


async def test_a_blocking_service_sees_no_401_either(brokers: Fleet) -> None:
    customer = new_customer(brokers.sandbox)
    first, second = (each for each in brokers.replicas if each.status is None)
    await connect(brokers, first, customer)
    url = f"{brokers.sandbox.url}/v1/export-items"

    def calls(count: int, http: httpx.Client) -> set[int]:
        return {http.get(url).status_code for _ in range(count)}

    address = f"ipv4:{first.target},{second.target}"
    with BlockingTokenClient(address) as client:
        auth = PleoAuth(client, customer.tenant, api_url=brokers.sandbox.url)
        with httpx.Client(auth=auth, verify=False) as http:  # noqa: S501 - clear text on loopback
            assert await asyncio.to_thread(calls, 5, http) == {200}
            request = RefreshGrantRequest(tenant=customer.tenant, reason="the test says so")
            await OperationsServiceStub(first.channel()).RefreshGrant(request)
            assert await asyncio.to_thread(calls, 5, http) == {200}

            brokers.sandbox.server.disconnect(company=customer.company)
            with pytest.raises(ReauthRequired):
                await asyncio.to_thread(calls, 1, http)
            await connect(brokers, second, customer)
            assert await asyncio.to_thread(calls, 5, http) == {200}
