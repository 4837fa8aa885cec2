"""A pooler in transaction mode between the broker and PostgreSQL: what it must let through.

The conformance suites of the stores run through it as well; here is what it may be set to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.dev.databases import database_name
from broker.dev.rundir import RunDirectory
from broker.store.connecting import TIMEOUTS, DatabaseUnfit
from broker.store.migrate import bundled_migrations, migrate
from broker.store.pool import PoolSettings, open_pool
from support.onboarding import execute
from support.pooler import Pooler, dismiss
from support.pooler import pooler as open_pooler
from support.service_role import SERVICE_ROLE, as_service


@pytest.fixture
async def database_url(database_url: str, pooler: Pooler) -> AsyncIterator[str]:
    """A migrated database, on which the pooler keeps no connection."""
    del pooler
    yield database_url
    await dismiss(database_url)


async def unfit(url: str) -> DatabaseUnfit:
    """Returns why a database is refused."""
    async with open_pool(PoolSettings(url=lambda: url)) as pool:
        with pytest.raises(DatabaseUnfit) as caught:
            await pool.fetch("SELECT 1")
    return caught.value


async def test_a_role_with_timeouts_has_them_in_every_session(
    database_url: str, pooler: Pooler
) -> None:
    url = pooler.through(as_service(database_url))
    ask = "SELECT current_setting(name) FROM unnest($1::text[]) AS name"

    async with open_pool(PoolSettings(url=lambda: url)) as pool:
        rows = await pool.fetch(ask, list(TIMEOUTS))

    assert [row[0] for row in rows] == list(TIMEOUTS.values())


async def test_a_role_without_timeouts_is_refused(database_url: str, pooler: Pooler) -> None:
    refused = await unfit(pooler.through(database_url))

    assert refused.code == "TIMEOUTS_MISSING"
    assert all(f" SET {name} = '{most}'" in refused.message for name, most in TIMEOUTS.items())


async def test_what_the_refusal_says_mends_it(database_url: str, pooler: Pooler) -> None:
    url = pooler.through(as_service(database_url))
    here = f'IN DATABASE "{database_name(database_url)}" SET'
    await execute(database_url, f"ALTER ROLE {SERVICE_ROLE} {here} lock_timeout = 0")
    refused = await unfit(url)
    await dismiss(database_url)

    await execute(database_url, refused.message.partition(": ")[2].replace("SET", here))

    async with open_pool(PoolSettings(url=lambda: url)) as pool:
        assert await pool.fetch("SELECT 1")


async def test_a_pooler_that_takes_no_timeouts_is_refused_with_what_to_set(
    database_url: str, run: RunDirectory
) -> None:
    async with open_pooler(run, database_url, name="strict", takes_timeouts=False) as strict:
        refused = await unfit(strict.through(as_service(database_url)))

    assert refused.code == "TIMEOUTS_NOT_TAKEN"
    assert refused.message.endswith(f"ignore_startup_parameters = {','.join(TIMEOUTS)}")


async def test_migrations_go_through_it_several_at_once(
    empty_database_url: str, pooler: Pooler
) -> None:
    url = pooler.through(empty_database_url)

    applied = await asyncio.gather(*(migrate(url) for _ in range(3)))

    assert sorted(map(len, applied)) == [0, 0, len(bundled_migrations())]
    await dismiss(empty_database_url)
