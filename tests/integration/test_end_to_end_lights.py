"""What a real broker says of faults that a question to the dependency would not find."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from broker.dev.rundir import RunDirectory
from broker.sandbox.faults import Hang
from broker.v1.operations_service_pb2 import ExplainGrantRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from support.fleet import Fleet, fleet_of_a_module, until_true
from support.onboarding import Customer, connect, execute, expire, get
from support.replica import Replica

pytestmark = pytest.mark.asyncio(loop_scope="module")

_FULL = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER full_disk BEFORE UPDATE ON grants EXECUTE FUNCTION refuse()
"""
_ROOM = "DROP TRIGGER full_disk ON grants; DROP FUNCTION refuse()"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brokers(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """One, with as little patience with Pleo as may be set."""
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        await brokers.start(1, BROKER_PLEO_TIMEOUT_SECONDS="1")
        yield brokers


async def until_it_says(
    brokers: Fleet, replica: Replica, check: str, error: str | None
) -> dict[str, Any]:
    """Waits until a check is bad with this error, or good (None); returns what readiness says."""
    told: dict[str, Any] = {}

    async def says() -> bool:
        nonlocal told
        told = (await brokers.asked(replica, "/readyz?verbose")).json()
        found = told["checks"][check]
        return (
            bool(found["healthy"])
            if error is None
            else (not found["healthy"] and found["last_error"] == error)
        )

    await until_true(says, seconds=60)
    return told


async def ask_in_vain(replica: Replica, customer: Customer) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get(replica.tokens, customer.tenant)
    return str(raised.value.details())


async def story_of(replica: Replica, customer: Customer) -> str:
    stub = OperationsServiceStub(replica.channel())
    told = await stub.ExplainGrant(ExplainGrantRequest(tenant=customer.tenant))
    return str(told.story)


async def test_pleo_is_unwell_while_an_answer_is_overdue(
    two: Fleet, first: Replica, customer: Customer
) -> None:
    await connect(two, first, customer)
    await expire(two, customer.tenant, known_to=first)
    two.sandbox.faults.add(Hang(when="before"), grant_type="refresh_token")

    said = await ask_in_vain(first, customer)
    told = await until_it_says(two, first, "pleo", "overdue")
    story = await story_of(first, customer)
    two.sandbox.release()
    after = await until_it_says(two, first, "pleo", None)

    assert said.startswith("REFRESH_OUTCOME_UNKNOWN")
    assert (told["can_serve"], told["can_refresh"], told["can_persist"]) == (True, False, True)
    assert after["can_refresh"]
    assert "finds Pleo in trouble: overdue." in story
    assert "What to do: Look at Pleo's status" in story
    assert len(first.seen("attempt_overdue")) == 1


async def test_nothing_can_be_kept_while_postgresql_refuses_to_write(
    two: Fleet, first: Replica, customer: Customer
) -> None:
    await connect(two, first, customer)
    await expire(two, customer.tenant, known_to=first)
    await execute(two.database_url, _FULL)

    said = await ask_in_vain(first, customer)
    told = await until_it_says(two, first, "postgres", "DISK_FULL")
    story = await story_of(first, customer)
    await execute(two.database_url, _ROOM)
    got = await get(first.tokens, customer.tenant)

    assert said.startswith("STORE_UNAVAILABLE")
    assert (told["can_serve"], told["can_refresh"], told["can_persist"]) == (True, False, False)
    assert "While this lasts, callers are told STORE_UNAVAILABLE." in story
    assert "What to do: Make room on PostgreSQL's disk." in story
    assert got.generation == 2
