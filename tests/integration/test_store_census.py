"""Counting all grants: by one replica, from indexes, and right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.domain.grant import GrantState
from broker.store import census
from broker.store.census import KEPT_LATE, Census
from broker.store.fleet import ALIVE_FOR
from support.grants import some_grant
from support.store_worlds import PostgresStoreWorld, postgres_world, put, put_some

AN_HOUR = timedelta(hours=1)


KEEPALIVE = timedelta(days=20)


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[PostgresStoreWorld]:
    async with postgres_world(database_url, tmp_path) as made:
        await made.fleet().beat("a-replica", "1")
        yield made


async def taken_by(world: PostgresStoreWorld, replica: str) -> Census | None:
    return await census.take_census(world.pool, replica=replica, keepalive=KEEPALIVE)


async def test_grants_are_counted_by_their_state(world: PostgresStoreWorld) -> None:
    await put_some(world.grants(), "acme", "bjerg")
    await world.pool.fetch(
        "UPDATE grants SET state = 'REVOKED', revoked_at = now(), exclusive_subject = NULL"
        " WHERE tenant = 'bjerg'"
    )

    taken = await taken_by(world, "a-replica")

    assert taken is not None
    counted = {state: number for state, number in taken.by_state.items() if number}
    assert counted == {GrantState.ACTIVE: 1, GrantState.REVOKED: 1}
    assert (taken.unresolved, taken.overdue, taken.lag) == (0, 0, timedelta(0))


async def test_only_the_first_of_the_living_counts(world: PostgresStoreWorld) -> None:
    await world.fleet().beat("b-replica", "1")

    assert await taken_by(world, "b-replica") is None
    await world.silence("a-replica", since=ALIVE_FOR + AN_HOUR)

    assert await taken_by(world, "b-replica") is not None
    assert await taken_by(world, "a-replica") is None


async def test_a_grant_asked_for_since_its_renewal_time_is_overdue(
    world: PostgresStoreWorld,
) -> None:
    await put_some(world.grants(), "used", "unused")
    await world.pool.fetch(
        "UPDATE grants SET renew_at = now() - 2 * $1::interval,"
        " last_used_at = now() - CASE tenant WHEN 'used' THEN 1 ELSE 3 END * $1::interval",
        AN_HOUR,
    )

    taken = await taken_by(world, "a-replica")

    assert taken is not None
    assert taken.overdue == 1
    assert 2 * AN_HOUR < taken.lag < 3 * AN_HOUR


async def test_a_grant_is_at_risk_when_keepalive_is_a_day_late(
    world: PostgresStoreWorld,
) -> None:
    await put_some(world.grants(), "kept", "late", "gone")
    await world.pool.fetch(
        "UPDATE grants SET state = CASE tenant WHEN 'gone' THEN 'REVOKED' ELSE 'ACTIVE' END,"
        " revoked_at = now(), exclusive_subject = NULL,"
        " refreshed_at = now() - CASE tenant WHEN 'kept' THEN $1::interval ELSE $2::interval END",
        KEEPALIVE + KEPT_LATE - AN_HOUR,
        KEEPALIVE + KEPT_LATE + AN_HOUR,
    )

    taken = await taken_by(world, "a-replica")

    assert taken is not None
    assert taken.at_risk == 1


@pytest.mark.parametrize(("deadline", "unresolved"), [(-AN_HOUR, 1), (AN_HOUR, 0)])
async def test_an_attempt_is_unresolved_once_its_deadline_has_passed(
    world: PostgresStoreWorld, deadline: timedelta, unresolved: int
) -> None:
    await put(world.grants(), some_grant(tenant="acme"))
    await world.pool.fetch(
        "UPDATE grants SET attempt_number = 1, attempt_id = 'x', attempt_kind = 'REFRESH',"
        " attempt_base = 1, attempt_deadline = now() + $1::interval, attempt_phase = 'ARMED',"
        " attempt_started_at = now(), attempt_replica = 'gone'",
        deadline,
    )

    taken = await taken_by(world, "a-replica")

    assert taken is not None
    assert taken.unresolved == unresolved


async def test_all_is_counted_in_indexes(world: PostgresStoreWorld) -> None:
    async with world.pool.transaction() as connection:
        # With a handful of rows reading the table whole is right, and says nothing.
        await connection.execute("SET LOCAL enable_seqscan = off")
        await connection.execute("SET LOCAL enable_bitmapscan = off")
        query = f"EXPLAIN {census._COUNT}"  # noqa: SLF001 - the very statement
        plan = "\n".join(row[0] for row in await connection.fetch(query, "a", ALIVE_FOR, KEEPALIVE))

    assert "Seq Scan on grants" not in plan
    for index in ("grants_not_active", "grants_attempted", "grants_overdue", "grants_idle"):
        assert f"Index Only Scan using {index}" in plan
    assert "One-Time Filter" in plan
