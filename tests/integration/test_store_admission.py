"""A serving broker uses no connection to a database of another schema or another home.

What stands behind an address may change: every connection is asked, not the first one alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker.store.home import Home, admission, replace_home, settle_home
from broker.store.migrate import migrate
from broker.store.pool import DatabaseUnfit, Pool, PoolSettings, open_pool
from broker.store.sealing import Keyring, generate_keyset
from support.store_worlds import THE_HOME

ANOTHER_HOME = replace(THE_HOME, name="elsewhere")


@asynccontextmanager
async def serving_pool(url: str, home: Home = THE_HOME) -> AsyncIterator[Pool]:
    async with open_pool(PoolSettings(url=lambda: url, admit=admission(home))) as pool:
        yield pool


async def settled(url: str, directory: Path, home: Home = THE_HOME) -> None:
    path = directory / "keyset.json"
    path.write_text(generate_keyset())
    async with open_pool(PoolSettings(url=lambda: url)) as pool:
        await settle_home(pool, Keyring.from_file(path), home)


async def test_a_database_without_our_schema_is_not_used(empty_database_url: str) -> None:
    async with serving_pool(empty_database_url) as pool:
        with pytest.raises(DatabaseUnfit, match="SCHEMA_TOO_OLD"):
            await pool.fetch("SELECT 1")


async def test_a_database_that_nobody_has_settled_is_not_used(database_url: str) -> None:
    async with serving_pool(database_url) as pool:
        with pytest.raises(DatabaseUnfit, match="not this broker's home"):
            await pool.fetch("SELECT 1")


async def test_a_database_that_becomes_ours_is_used_without_a_restart(
    empty_database_url: str, tmp_path: Path
) -> None:
    async with serving_pool(empty_database_url) as pool:
        with pytest.raises(DatabaseUnfit):
            await pool.fetch("SELECT 1")

        await migrate(empty_database_url)
        await settled(empty_database_url, tmp_path)

        (row,) = await pool.fetch("SELECT 1 AS one")
        assert row["one"] == 1


async def test_the_database_of_another_broker_is_not_used(
    database_url: str, tmp_path: Path
) -> None:
    await settled(database_url, tmp_path, ANOTHER_HOME)

    async with serving_pool(database_url) as pool:
        with pytest.raises(DatabaseUnfit, match="not this broker's home"):
            await pool.fetch("SELECT 1")


async def test_a_database_that_changes_hands_loses_its_new_connections(
    database_url: str, tmp_path: Path
) -> None:
    await settled(database_url, tmp_path)
    async with serving_pool(database_url) as pool, pool.transaction() as held:
        await replace_home(pool, ANOTHER_HOME)

        async with pool.transaction():
            with pytest.raises(DatabaseUnfit):
                await pool.fetch("SELECT 1")
        assert await held.fetchval("SELECT 1") == 1
