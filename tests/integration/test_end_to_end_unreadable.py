"""A sealed value that was moved: its tenant alone is told, loudly, and everybody else goes on."""

from __future__ import annotations

import asyncpg
import grpc
import pytest

from support.fleet import Fleet, until_true
from support.onboarding import Customer, connect, execute, expire, get, new_customer
from support.replica import Replica
from support.rpc import failure_of
from support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MOVED = "version = version + 1, changed_xid = pg_current_xact_id()"

_COPY = """
    CREATE TABLE IF NOT EXISTS stolen AS SELECT * FROM grants WHERE false;
    DELETE FROM stolen; INSERT INTO stolen SELECT * FROM grants
"""

# Of a grant in its second generation; `stolen` has all rows as they were in their first.
MOVES = {
    "another row": "(sealed_access_token, sealed_refresh_token) = (SELECT sealed_access_token, "
    "sealed_refresh_token FROM grants AS other WHERE other.tenant <> grants.tenant "
    "AND other.generation = grants.generation AND sealed_access_token IS NOT NULL LIMIT 1)",
    "another field": "sealed_access_token = sealed_refresh_token",
    "another table": "sealed_access_token = (SELECT sealed_fingerprint_key FROM home)",
    "an older generation": "(sealed_access_token, sealed_refresh_token) = (SELECT "
    "sealed_access_token, sealed_refresh_token FROM stolen WHERE stolen.tenant = grants.tenant)",
    "an older generation with its number": "(sealed_access_token, sealed_refresh_token, "
    "pair_generation) = (SELECT sealed_access_token, sealed_refresh_token, pair_generation "
    "FROM stolen WHERE stolen.tenant = grants.tenant)",
}


async def move(brokers: Fleet, tenant: str, assignment: str, *, known_to: Replica) -> None:
    """Moves a value, and waits until the broker that has a copy in memory has dropped it."""
    before = len(known_to.seen("memory_dropped", tenant=tenant))
    statement = f"UPDATE grants SET {_MOVED}, {assignment} WHERE tenant = $1"  # noqa: S608 - constants
    await execute(brokers.database_url, statement, tenant)
    await until(lambda: len(known_to.seen("memory_dropped", tenant=tenant)) > before)


async def rotated(brokers: Fleet, replica: Replica) -> tuple[Customer, Customer]:
    """Returns two customers in their second generation; `stolen` remembers their first."""
    both = new_customer(brokers.sandbox), new_customer(brokers.sandbox)
    for each in both:
        await connect(brokers, replica, each)
    await execute(brokers.database_url, _COPY)
    await expire(brokers, *(each.tenant for each in both), known_to=replica)
    for each in both:
        assert (await get(replica.tokens, each.tenant)).generation == 2
    return both


async def metric(brokers: Fleet, replica: Replica, name: str) -> float:
    shown = (await brokers.asked(replica, "/metrics")).text
    lines = [line for line in shown.splitlines() if line.startswith(f"token_broker_{name} ")]
    return float(lines[0].split()[1])


@pytest.mark.parametrize("assignment", MOVES.values(), ids=MOVES)
async def test_a_moved_value_concerns_its_tenant_alone(
    two: Fleet, first: Replica, assignment: str
) -> None:
    moved, other = await rotated(two, first)

    await move(two, moved.tenant, assignment, known_to=first)
    failures = [await failure_of(get(first.tokens, moved.tenant)) for _ in range(3)]

    for failure in failures:
        assert failure.code is grpc.StatusCode.DATA_LOSS
        assert failure.error_info.reason == "RECORD_UNREADABLE"
        assert failure.error_info.metadata["tenant"] == moved.tenant
    assert (await get(first.tokens, other.tenant)).generation == 2
    (told,) = first.seen("sealed_value_unreadable", tenant=moved.tenant)
    assert (told["level"], told["table"]) == ("error", "grants")
    assert two.sandbox.record.counts(moved.company).presentations_of_superseded == 0


async def test_it_is_shown_and_the_replica_stays_ready(two: Fleet, first: Replica) -> None:
    moved, _ = await rotated(two, first)
    await move(two, moved.tenant, MOVES["another field"], known_to=first)
    before = await metric(two, first, "unreadable_records_met_total")

    await failure_of(get(first.tokens, moved.tenant))

    async def is_shown() -> bool:
        verbose = (await two.asked(first, "/readyz?verbose")).json()
        return bool(verbose["checks"]["records"]["last_error"] == "RECORD_UNREADABLE")

    await until_true(is_shown)
    assert (await two.asked(first, "/readyz")).status_code == 200
    assert await metric(two, first, "unreadable_records") >= 1
    assert await metric(two, first, "unreadable_records_met_total") == before + 1


async def test_a_new_consent_replaces_what_does_not_open(two: Fleet, first: Replica) -> None:
    moved, _ = await rotated(two, first)
    await move(two, moved.tenant, MOVES["another field"], known_to=first)

    await connect(two, first, moved)

    assert (await get(first.tokens, moved.tenant)).generation == 3


async def test_nothing_of_a_moved_value_is_written(two: Fleet, first: Replica) -> None:
    moved, _ = await rotated(two, first)
    await move(two, moved.tenant, MOVES["another field"], known_to=first)

    await failure_of(get(first.tokens, moved.tenant))

    connection = await asyncpg.connect(two.database_url)
    try:
        row = await connection.fetchrow(
            "SELECT state, generation, last_attempt FROM grants WHERE tenant = $1", moved.tenant
        )
    finally:
        await connection.close()
    assert row is not None
    assert (row["state"], row["generation"]) == ("ACTIVE", 2)
