"""The schema comes up to date once, whoever asks and however often, and tells who may read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from broker.domain.errors import StoreUnavailable
from broker.store.fleet import PostgresFleet
from broker.store.health import probe
from broker.store.migrate import (
    Migration,
    MigrationError,
    apply_migrations,
    bundled_migrations,
    migrate,
)
from broker.store.pool import Pool, PoolSettings, open_pool
from broker.store.schema import SCHEMA_VERSION, SchemaFitness, judge_schema

THE_NAMES = [migration.name for migration in bundled_migrations()]


def some_migration(version: int, sql: str, *, minimum_reader: int = 1) -> Migration:
    return Migration(
        version=version, name=f"{version:04}_some", sql=sql, minimum_reader=minimum_reader
    )


@asynccontextmanager
async def pool_of(url: str) -> AsyncIterator[Pool]:
    async with open_pool(PoolSettings(url=lambda: url)) as pool:
        yield pool


def test_the_files_are_numbered_without_gaps_up_to_the_version_of_the_code() -> None:
    versions = [migration.version for migration in bundled_migrations()]

    assert versions == list(range(1, SCHEMA_VERSION + 1))


async def test_an_empty_database_gets_the_schema_once(empty_database_url: str) -> None:
    assert await migrate(empty_database_url) == THE_NAMES
    assert await migrate(empty_database_url) == []

    async with pool_of(empty_database_url) as pool:
        status = await probe(pool)
    assert (status.schema_version, status.fitness) == (SCHEMA_VERSION, SchemaFitness.FIT)


async def test_a_dry_run_tells_and_changes_nothing(empty_database_url: str) -> None:
    assert await migrate(empty_database_url, dry_run=True) == THE_NAMES

    async with pool_of(empty_database_url) as pool:
        status = await probe(pool)
    assert (status.schema_version, status.fitness) == (0, SchemaFitness.TOO_OLD)


async def test_a_database_that_was_put_back_counts_as_another_one(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    async with pool_of(empty_database_url) as pool:
        before = await PostgresFleet(pool).read()
        await PostgresFleet(pool).apply(before, replace(before.state, timeline=before.live))

        await migrate(empty_database_url, is_restored=True, dry_run=True)
        dry = (await PostgresFleet(pool).read()).state.timeline
        await migrate(empty_database_url, is_restored=True)
        marked = await PostgresFleet(pool).read()

    assert dry == before.live
    assert marked.state.timeline not in {"", marked.live}


async def test_of_several_at_once_one_migrates(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))

    assert sorted(applied) == [[], [], [], THE_NAMES]


async def test_what_fails_half_way_leaves_nothing(empty_database_url: str) -> None:
    good = some_migration(1, "CREATE TABLE first ()")
    bad = some_migration(2, "CREATE TABLE second (); SELECT nonsense")

    with pytest.raises(asyncpg.UndefinedColumnError):
        await apply_migrations(empty_database_url, [good, bad])

    assert await apply_migrations(empty_database_url, [good, bad], dry_run=True) == [
        "0001_some",
        "0002_some",
    ]


async def test_a_file_that_changed_after_it_was_applied_is_refused(database_url: str) -> None:
    changed = some_migration(1, "CREATE TABLE something_else ()")

    with pytest.raises(MigrationError, match="changed after they were applied: 0001_some"):
        await apply_migrations(database_url, [changed])


async def test_a_newer_schema_is_fit_as_long_as_it_says_so(database_url: str) -> None:
    newer = some_migration(SCHEMA_VERSION + 1, "SELECT 1", minimum_reader=SCHEMA_VERSION)
    breaking = some_migration(SCHEMA_VERSION + 2, "SELECT 1", minimum_reader=SCHEMA_VERSION + 2)

    async with pool_of(database_url) as pool:
        await apply_migrations(database_url, [newer])
        assert (await probe(pool)).fitness is SchemaFitness.FIT
        await apply_migrations(database_url, [newer, breaking])
        assert (await probe(pool)).fitness is SchemaFitness.TOO_NEW


async def test_older_code_migrates_nothing_on_a_newer_schema(database_url: str) -> None:
    await apply_migrations(database_url, [some_migration(SCHEMA_VERSION + 1, "SELECT 1")])

    assert await migrate(database_url) == []


async def test_an_unreachable_server_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await migrate("postgresql://postgres@127.0.0.1:1/none")


@pytest.mark.parametrize(
    ("version", "minimum_reader", "fitness"),
    [
        (0, 0, SchemaFitness.TOO_OLD),
        (SCHEMA_VERSION, SCHEMA_VERSION, SchemaFitness.FIT),
        (SCHEMA_VERSION + 1, SCHEMA_VERSION, SchemaFitness.FIT),
        (SCHEMA_VERSION + 1, SCHEMA_VERSION + 1, SchemaFitness.TOO_NEW),
    ],
)
def test_a_schema_is_judged_by_its_version_and_its_reader(
    version: int, minimum_reader: int, fitness: SchemaFitness
) -> None:
    assert judge_schema(version, minimum_reader) is fitness
