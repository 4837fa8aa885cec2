"""A client's story before the test kit's fake broker and before real ones: it must be the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from broker.client import (
    InvalidRequest,
    ReauthRequired,
    TenantNotFound,
    TokenBrokerError,
    TokenClient,
)
from broker.testing import fake_broker
from support.client_worlds import FakeWorld, RealWorld, World
from support.fleet import Fleet
from support.onboarding import new_customer
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(params=["fake", "real"], loop_scope="module")
async def world(request: pytest.FixtureRequest, two: Fleet) -> AsyncIterator[World]:
    """A broker that does not know its tenant yet."""
    if request.param == "fake":
        async with fake_broker() as broker:
            yield FakeWorld(broker=broker)
    else:
        yield RealWorld(brokers=two, customer=new_customer(two.sandbox))


async def failure_of(client: TokenClient, tenant: str) -> TokenBrokerError:
    with pytest.raises(TokenBrokerError) as raised:
        await client.get(tenant)
    return raised.value


async def test_a_token_is_kept_until_a_report_brings_the_newer_one(world: World) -> None:
    await world.connect()
    async with TokenClient(world.address) as client:
        first = await client.get(world.tenant)
        await world.rotate()
        assert await client.get(world.tenant) is first

        newer = await client.report_rejected(world.tenant, first.generation)

        assert newer.generation == first.generation + 1
        assert newer.value != first.value
        assert newer.token_type == "Bearer"
        assert not newer.is_degraded
        assert newer.expire_time > datetime.now(UTC) + timedelta(minutes=1)
        assert await client.get(world.tenant) is newer


async def test_who_has_left_must_connect_again_and_is_told_why(world: World) -> None:
    await world.connect()
    async with TokenClient(world.address) as client:
        first = await client.get(world.tenant)
        await world.leave()

        with pytest.raises(ReauthRequired) as raised:
            await client.report_rejected(world.tenant, first.generation)

        assert raised.value.tenant == world.tenant
        assert raised.value.cause == "EXPIRED_OR_REVOKED"
        assert raised.value.since is not None
        assert abs(raised.value.since - datetime.now(UTC)) < timedelta(minutes=1)
        await world.connect()
        assert (await client.get(world.tenant)).generation > first.generation


async def test_a_tenant_that_nobody_knows_or_that_was_ended_is_not_found(world: World) -> None:
    async with TokenClient(world.address) as client:
        assert isinstance(await failure_of(client, world.tenant), TenantNotFound)
        await world.connect()
        first = await client.get(world.tenant)
        await world.revoke()

        with pytest.raises(TenantNotFound):
            await client.report_rejected(world.tenant, first.generation)


async def test_a_name_that_is_no_tenants_is_refused(world: World) -> None:
    async with TokenClient(world.address) as client:
        assert isinstance(await failure_of(client, "not a tenant"), InvalidRequest)


async def test_a_watcher_has_each_change_without_asking(world: World) -> None:
    await world.connect()
    async with TokenClient(world.address, watch=True) as client:
        first = await client.get(world.tenant)

        def generation() -> int:
            at_hand = client.cached(world.tenant)
            return 0 if at_hand is None else at_hand.generation

        await world.rotate()
        await until(lambda: generation() == first.generation + 1)

        await world.leave()
        await until(lambda: generation() == 0)
        assert isinstance(await failure_of(client, world.tenant), ReauthRequired)
