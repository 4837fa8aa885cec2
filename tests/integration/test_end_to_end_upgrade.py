"""An upgrade from the previous release, as deploy/README.md has it: migrate, then roll."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from broker.dev.rundir import RunDirectory
from broker.dev.servers import DATABASE_VARIABLE, REDIS_VARIABLE
from broker.store.migrate import migrate
from broker.store.schema import SCHEMA_VERSION
from support.fleet import Fleet, fleet
from support.previous import migrate_with, previous_release, run_tests_of, with_newest_schema
from support.rolling import under_load
from support.service_role import SERVICE_ROLE, as_service, make_service_role
from support.source import ROOT

pytestmark = pytest.mark.timeout(300)

STATEMENTS = "tests/integration/test_store_queries.py"


@pytest.fixture(scope="module")
def previous(run: RunDirectory) -> Path:
    """The code of the previous release."""
    return previous_release(run.path)


@pytest.fixture
async def brokers(
    empty_database_url: str, redis_url: str, run: RunDirectory, previous: Path
) -> AsyncIterator[Fleet]:
    """A fleet on the previous release's schema, whose brokers run its code."""
    await asyncio.to_thread(migrate_with, previous, empty_database_url)
    async with fleet(empty_database_url, redis_url, run) as made:
        made.code = previous
        yield made
        made.tell()


async def schema_of(database_url: str) -> tuple[int, int]:
    """Returns the schema's version, and the oldest code that it says may read it."""
    connection = await asyncpg.connect(database_url)
    try:
        (row,) = await connection.fetch(
            "SELECT max(version), max(minimum_reader) FROM schema_migrations"
        )
    finally:
        await connection.close()
    return row[0], row[1]


async def test_an_upgrade_under_load_fails_no_call(brokers: Fleet) -> None:
    before, _ = await schema_of(brokers.database_url)
    async with under_load(brokers) as rolling:
        await make_service_role(brokers.database_url)
        await migrate(brokers.database_url, service_role=SERVICE_ROLE)
        await rolling.callers.until_answered(50)

        brokers.code, brokers.serving_url = ROOT, as_service(brokers.database_url)
        news = await rolling.replace_all()
        shares = await rolling.shares(news)

    callers, counts = rolling.callers, brokers.sandbox.record.counts()
    version, reader = await schema_of(brokers.database_url)
    assert reader <= before < version == SCHEMA_VERSION
    assert callers.failed + rolling.web.failed == []
    assert set(rolling.application.seen) == {200}
    assert counts.presentations == rolling.rotated == 3 * len(rolling.customers)
    assert counts.presentations_of_superseded == 0
    assert min(shares) > 0.1


async def test_the_previous_release_passes_its_tests_on_our_schema(
    database_server: str, redis_server: str, previous: Path, tmp_path: Path
) -> None:
    """Those of the statements: what else there is stands on them."""
    code = shutil.copytree(previous, tmp_path / "previous")
    with_newest_schema(code)
    servers = {DATABASE_VARIABLE: database_server, REDIS_VARIABLE: redis_server}

    failed = await asyncio.to_thread(run_tests_of, code, STATEMENTS, servers=servers)

    assert failed == ""
