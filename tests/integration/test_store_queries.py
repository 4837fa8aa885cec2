"""What only PostgreSQL can show: late commits, plans, lines and partitions of the history."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from broker.domain.errors import StoreUnavailable
from broker.domain.evidence import BREAKER_WINDOW, GUARD_WINDOW
from broker.domain.grant import Doubt
from broker.domain.history import AttemptOutcome, AttemptRecord
from broker.ports import Change
from broker.store import consents, fleet, grants, health, upkeep
from broker.store.connecting import STATEMENT_TIMEOUT
from broker.store.home import settle_home
from broker.store.partitions import DAYS_AHEAD, maintain_attempts
from broker.store.past import LIVE
from support.grants import THE_NOW, some_attempt, some_grant
from support.service_role import SERVICE_ROLE
from support.store_worlds import (
    THE_HOME,
    PostgresStoreWorld,
    change,
    postgres_world,
    put,
    put_some,
)

SOMEBODY_WAITS = """
    SELECT EXISTS (SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock')
"""

A_DAY = timedelta(days=1)

A_FORTNIGHT = timedelta(days=14)


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[PostgresStoreWorld]:
    async with postgres_world(database_url, tmp_path) as made:
        yield made


async def plan_of(world: PostgresStoreWorld, query: str, *arguments: object) -> str:
    """Returns how PostgreSQL would run a statement on many rows."""
    async with world.pool.transaction() as connection:
        # With a handful of rows reading the table whole is right, and says nothing.
        await connection.execute("SET LOCAL enable_seqscan = off")
        return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}", *arguments))


async def test_keys_in_use_are_found_by_steps_of_an_index(world: PostgresStoreWorld) -> None:
    plan = await plan_of(world, health._KEYS_IN_USE)  # noqa: SLF001 - the very statement

    assert "using grants_key_id on grants" in plan
    assert "imports_key_id" in plan
    assert "Scan on grants" not in plan.replace("using grants_key_id on grants", "")


async def test_a_grant_is_read_by_its_key(world: PostgresStoreWorld) -> None:
    plan = await plan_of(world, grants._READ, "acme")  # noqa: SLF001 - the very statement

    assert "using grants_pkey" in plan


async def test_changes_are_read_from_their_index(world: PostgresStoreWorld) -> None:
    plan = await plan_of(world, grants._CHANGES, 5)  # noqa: SLF001 - the very statement

    assert "grants_changed_xid" in plan
    assert "Seq Scan" not in plan


async def test_what_is_weighed_costs_what_is_recent(world: PostgresStoreWorld) -> None:
    windows = (GUARD_WINDOW, BREAKER_WINDOW)

    plan = await plan_of(world, fleet._WEIGH, "acme", 1, *windows, "http_429")  # noqa: SLF001 - likewise

    assert "Index Cond: (ended_at >" in plan


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        (upkeep._FORGET_AUTHORIZATIONS, (A_DAY,)),  # noqa: SLF001 - likewise
        (consents._DELETE_OVER, ()),  # noqa: SLF001 - likewise
    ],
)
async def test_authorizations_that_are_over_are_found_by_their_end(
    world: PostgresStoreWorld, query: str, arguments: tuple[object, ...]
) -> None:
    plan = await plan_of(world, query, *arguments)

    assert "Index Cond: (expires_at <" in plan


async def test_a_change_that_commits_late_is_told(
    database_url: str, world: PostgresStoreWorld
) -> None:
    store = world.grants()
    await put_some(store, "late", "early")
    other = await asyncpg.connect(database_url)
    writing = other.transaction()
    await writing.start()
    await other.execute(
        "UPDATE grants SET generation = 9, changed_xid = pg_current_xact_id() WHERE tenant = 'late'"
    )
    await put(store, some_grant(tenant="early", subject=None, generation=8))

    during = await store.changes((await store.changes(-1)).cursor)
    await writing.commit()
    after = await store.changes(during.cursor)
    await other.close()

    assert "late" not in [each.tenant for each in during.moved]
    assert "late" in [each.tenant for each in after.moved]


async def test_another_timeline_tells_that_the_store_was_rewound(world: PostgresStoreWorld) -> None:
    store = world.grants()
    cursor = (await store.changes(-1)).cursor

    store._live = "another"  # noqa: SLF001 - a failover takes two servers
    page = await store.changes(cursor)

    assert page.is_rewound
    assert not (await store.changes(page.cursor)).is_rewound


async def test_rows_from_another_clusters_future_are_told_once(world: PostgresStoreWorld) -> None:
    store = world.grants()
    await put_some(store, "acme")
    await world.pool.fetch("UPDATE grants SET changed_xid = '99999999'")

    await settle_home(world.pool, world.keyring, THE_HOME)

    cursor = (await store.changes(-1)).cursor
    assert (await store.changes(cursor)).moved == []


async def test_notes_of_use_in_any_order_do_not_wait_for_each_other(
    world: PostgresStoreWorld,
) -> None:
    store = world.grants()
    tenants = [f"tenant-{number:03}" for number in range(50)]
    await put_some(store, *tenants)

    async with asyncio.TaskGroup() as group:
        for turn in range(8):
            order = tenants if turn % 2 else tenants[::-1]
            group.create_task(store.note_used(order), name=f"use {turn}")

    assert all([(await store.read(tenant)).grant.last_used_at for tenant in tenants])


def some_line(started_at_days: int) -> AttemptRecord:
    """Returns the line of an attempt that started so many days after the tests' now."""
    started = THE_NOW + timedelta(days=started_at_days)
    return AttemptRecord(
        tenant="acme",
        attempt=some_attempt(number=100 + started_at_days, started_at=started),
        outcome=AttemptOutcome.ROTATED,
        ended_at=started,
        http_status=200,
        duration=timedelta(milliseconds=120),
        generation_after=8,
    )


async def partitions(world: PostgresStoreWorld) -> list[str]:
    rows = await world.pool.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
        "WHERE inhparent = 'refresh_attempts'::regclass ORDER BY name"
    )
    return [row["name"] for row in rows]


async def test_a_line_says_all_there_is_to_say(world: PostgresStoreWorld) -> None:
    store = world.grants()
    before = await put(store, some_grant())

    await store.apply(before, Change(after=some_grant(doubt=Doubt.NONE), ended=some_line(0)))

    (row,) = await world.pool.fetch("SELECT * FROM refresh_attempts")
    attempt = some_attempt(number=100, started_at=THE_NOW)
    assert dict(row) == {
        "tenant": "acme",
        "number": 100,
        "attempt_id": attempt.attempt_id,
        "kind": "REFRESH",
        "base_generation": 7,
        "phase": "ARMED",
        "replica": attempt.replica,
        "started_at": THE_NOW,
        "deadline": attempt.deadline,
        "ended_at": THE_NOW,
        "outcome": "ROTATED",
        "http_status": 200,
        "error": "",
        "duration": timedelta(milliseconds=120),
        "generation_after": 8,
    }


async def test_a_line_that_cannot_be_sent_is_lost_and_the_grant_is_written(
    world: PostgresStoreWorld,
) -> None:
    store = world.grants()
    before = await store.read("acme")
    unsendable = Change(after=some_grant(), ended=replace(some_line(0), error="\ud800"))

    assert await store.apply(before, unsendable) is not None
    assert world.lost_history == [("acme", 100)]
    # The row has moved on: nothing was written that could lack its line.
    assert await store.apply(before, unsendable) is None
    assert world.lost_history == [("acme", 100)]


async def test_partitions_are_made_for_the_coming_days_once(world: PostgresStoreWorld) -> None:
    await asyncio.gather(*(maintain_attempts(world.pool, retention=A_FORTNIGHT) for _ in range(3)))
    first = await partitions(world)
    await maintain_attempts(world.pool, retention=A_FORTNIGHT)

    assert await partitions(world) == first
    assert len(first) == 1 + 1 + DAYS_AHEAD


async def test_lines_without_a_partition_move_into_theirs(world: PostgresStoreWorld) -> None:
    await world.pool.fetch(
        "INSERT INTO refresh_attempts SELECT 'acme', 1, 'id', 'REFRESH', 7, 'ARMED', 'r', "
        "clock_timestamp(), clock_timestamp(), clock_timestamp(), 'ROTATED', 200, ''"
    )

    await maintain_attempts(world.pool, retention=A_FORTNIGHT)

    assert await world.pool.fetch("SELECT FROM refresh_attempts")
    assert await world.pool.fetch("SELECT FROM refresh_attempts_default") == []


async def test_a_line_written_while_its_partition_is_made_is_not_lost(
    database_url: str, world: PostgresStoreWorld
) -> None:
    store = world.grants()
    before = await put(store, some_grant())
    change = Change(after=some_grant(doubt=Doubt.NONE), ended=some_line(0))
    maker = await asyncpg.connect(database_url)
    async with asyncio.TaskGroup() as tasks, maker.transaction():
        await maker.execute(
            "CREATE TABLE made (LIKE refresh_attempts INCLUDING ALL);"
            "ALTER TABLE refresh_attempts ATTACH PARTITION made "
            f"FOR VALUES FROM ('{THE_NOW:%F} 00:00Z') TO ('{THE_NOW + A_DAY:%F} 00:00Z')"
        )
        writing = tasks.create_task(store.apply(before, change))
        while not await maker.fetchval(SOMEBODY_WAITS):
            pass
    await maker.close()

    assert writing.result() is not None
    assert world.lost_history == []
    assert len(await world.pool.fetch("SELECT FROM made")) == 1


async def test_what_is_older_than_the_retention_is_dropped(world: PostgresStoreWorld) -> None:
    store = world.grants()
    before = await put(store, some_grant())
    await world.pool.fetch(
        "CREATE TABLE refresh_attempts_20200101 PARTITION OF refresh_attempts "
        "FOR VALUES FROM ('2020-01-01 00:00Z') TO ('2020-01-02 00:00Z')"
    )
    for days in (-2251, -2000):
        before = await change(store, before, some_grant())
        before = await store.apply(  # type: ignore[assignment]
            before, Change(after=some_grant(), ended=some_line(days))
        )

    await maintain_attempts(world.pool, retention=A_FORTNIGHT)

    assert "refresh_attempts_20200101" not in await partitions(world)
    assert await world.pool.fetch("SELECT FROM refresh_attempts") == []


async def test_days_that_were_left_alone_go_one_by_one_beside_a_reader(
    database_url: str, world: PostgresStoreWorld
) -> None:
    days = ("20200101", "20200102")
    for day in days:
        await world.pool.fetch(
            f"CREATE TABLE refresh_attempts_{day} PARTITION OF refresh_attempts "
            f"FOR VALUES FROM ('{day} 00:00Z') TO ('{day} 23:00Z')"
        )
    reader = await asyncpg.connect(database_url)
    async with reader.transaction():
        # Reads the later day alone, for as long as it likes.
        await reader.execute("LOCK refresh_attempts_20200102 IN ACCESS SHARE MODE")
        with pytest.raises(StoreUnavailable):
            await maintain_attempts(world.serving, retention=A_FORTNIGHT)
        left = await partitions(world)
    await reader.close()
    await maintain_attempts(world.serving, retention=A_FORTNIGHT)

    assert [f"refresh_attempts_{day}" in left for day in days] == [False, True]
    assert not {f"refresh_attempts_{day}" for day in days} & set(await partitions(world))
    assert len(left) == 1 + 1 + 1 + DAYS_AHEAD


async def test_the_upkeep_of_a_day_has_more_time_than_a_statement(
    world: PostgresStoreWorld,
) -> None:
    await world.pool.fetch(
        "CREATE FUNCTION insist() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN ASSERT current_setting('statement_timeout') = '1min'; RETURN NULL; END $$"
    )
    await world.pool.fetch(
        "CREATE TRIGGER insist BEFORE DELETE ON refresh_attempts_default "
        "FOR EACH STATEMENT EXECUTE FUNCTION insist()"
    )

    await maintain_attempts(world.serving, retention=A_FORTNIGHT)

    (row,) = await world.serving.fetch("SHOW statement_timeout")
    assert row["statement_timeout"] == STATEMENT_TIMEOUT


async def test_a_dump_read_into_the_same_cluster_is_another_past(
    world: PostgresStoreWorld,
) -> None:
    before = (await world.grants().read("acme")).past.live

    await world.pool.fetch("CREATE TABLE copied (LIKE grants INCLUDING ALL)")
    await world.pool.fetch("DROP TABLE grants")
    await world.pool.fetch("ALTER TABLE copied RENAME TO grants")
    await world.pool.fetch(f"GRANT SELECT ON grants TO {SERVICE_ROLE}")

    assert (await world.grants().read("acme")).past.live != before


async def test_an_ordinary_role_may_ask_for_the_past(world: PostgresStoreWorld) -> None:
    role = f"ordinary_{secrets.token_hex(4)}"
    async with world.pool.transaction() as connection:
        await connection.execute(f"CREATE ROLE {role}")
        await connection.execute(f"SET LOCAL ROLE {role}")
        live = await connection.fetchval(f"SELECT {LIVE}")
        await connection.execute("RESET ROLE")
        await connection.execute(f"DROP ROLE {role}")

    assert live == (await world.grants().read("acme")).past.live
