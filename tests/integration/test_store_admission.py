"""A serving broker uses no connection to a database of another schema or another home.

What stands behind an address may change: every connection is asked, not the first one alone.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from broker.domain.errors import StoreUnavailable
from broker.ops.checks import HomeCheck, Subjects
from broker.ops.pleo_watch import PleoWatch
from broker.store.adopting import adopt_home
from broker.store.connecting import DatabaseUnfit
from broker.store.home import (
    Home,
    HomeDiffersError,
    admission,
    read_home,
    settle_home,
)
from broker.store.migrate import migrate
from broker.store.pool import Pool, PoolSettings, open_pool
from broker.store.sealing import Keyring, generate_keyset
from support.store_worlds import THE_HOME

ANOTHER_HOME = replace(THE_HOME, name="elsewhere")

OTHERS = {
    "name": ANOTHER_HOME,
    "environment": replace(THE_HOME, environment="production"),
    "token_url": replace(THE_HOME, token_url="https://auth.example/token"),
    "client_id": replace(THE_HOME, client_id="another-client"),
}


@asynccontextmanager
async def serving_pool(url: str, keyring: Keyring) -> AsyncIterator[Pool]:
    settings = PoolSettings(url=lambda: url, admit=admission(THE_HOME, keyring))
    async with open_pool(settings) as pool:
        yield pool


def keyring_in(directory: Path) -> Keyring:
    path = directory / f"{secrets.token_hex(4)}.json"
    path.write_text(generate_keyset())
    return Keyring.from_file(path)


async def settle(url: str, keyring: Keyring, home: Home = THE_HOME) -> None:
    async with open_pool(PoolSettings(url=lambda: url)) as pool:
        await settle_home(pool, keyring, home)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return keyring_in(tmp_path)


async def test_a_database_without_our_schema_is_not_used(
    empty_database_url: str, keyring: Keyring
) -> None:
    async with serving_pool(empty_database_url, keyring) as pool:
        with pytest.raises(DatabaseUnfit, match="SCHEMA_TOO_OLD"):
            await pool.fetch("SELECT 1")


async def test_a_database_that_nobody_has_settled_is_not_used(
    database_url: str, keyring: Keyring
) -> None:
    async with serving_pool(database_url, keyring) as pool:
        with pytest.raises(DatabaseUnfit, match="not this broker's home"):
            await pool.fetch("SELECT 1")


async def test_a_database_that_becomes_ours_is_used_without_a_restart(
    empty_database_url: str, keyring: Keyring
) -> None:
    async with serving_pool(empty_database_url, keyring) as pool:
        with pytest.raises(DatabaseUnfit):
            await pool.fetch("SELECT 1")

        await migrate(empty_database_url)
        await settle(empty_database_url, keyring)

        (row,) = await pool.fetch("SELECT 1 AS one")
        assert row["one"] == 1


async def test_the_database_of_another_broker_is_not_used(
    database_url: str, keyring: Keyring
) -> None:
    await settle(database_url, keyring, ANOTHER_HOME)

    async with serving_pool(database_url, keyring) as pool:
        with pytest.raises(DatabaseUnfit, match="not this broker's home"):
            await pool.fetch("SELECT 1")


@pytest.mark.parametrize("what", OTHERS)
async def test_whatever_differs_of_the_home_the_database_is_refused_and_stays_as_it_was(
    database_url: str, keyring: Keyring, what: str
) -> None:
    await settle(database_url, keyring, OTHERS[what])

    async with open_pool(PoolSettings(url=lambda: database_url)) as pool:
        with pytest.raises(HomeDiffersError, match=rf"another broker's home: {what}: "):
            await settle_home(pool, keyring, THE_HOME)

        assert await read_home(pool) == OTHERS[what]
    async with serving_pool(database_url, keyring) as pool:
        with pytest.raises(DatabaseUnfit, match="not this broker's home"):
            await pool.fetch("SELECT 1")


async def test_a_database_that_changes_hands_loses_its_new_connections(
    database_url: str, keyring: Keyring
) -> None:
    await settle(database_url, keyring)
    async with serving_pool(database_url, keyring) as pool, pool.transaction() as held:
        assert await adopt_home(pool, shown=THE_HOME, ours=ANOTHER_HOME)

        async with pool.transaction():
            with pytest.raises(DatabaseUnfit):
                await pool.fetch("SELECT 1")
        assert await held.fetchval("SELECT 1") == 1


async def test_a_keyset_of_another_installation_seals_nothing_here(
    database_url: str, keyring: Keyring, tmp_path: Path
) -> None:
    await settle(database_url, keyring)

    async with serving_pool(database_url, keyring_in(tmp_path)) as pool:
        with pytest.raises(DatabaseUnfit, match="lacks the key") as raised:
            await pool.fetch("SELECT 1")
    assert raised.value.code == "KEY_UNAVAILABLE"


class Away:
    """A pool whose server may be away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.is_away = False

    async def fetch(self, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        if self.is_away:
            raise StoreUnavailable("away")
        return await self._pool.fetch(query, *arguments)


async def test_a_home_that_nobody_can_look_at_is_as_it_last_was(
    database_url: str, keyring: Keyring
) -> None:
    async with open_pool(PoolSettings(url=lambda: database_url)) as pool:
        away = Away(pool)
        check = HomeCheck(subjects_on(away, keyring))
        found = [(await check.probe()).error]
        away.is_away = True
        found.append((await check.probe()).error)

        await pool.fetch("UPDATE home SET name = 'elsewhere'")
        away.is_away = False
        found.append((await check.probe()).error)
        away.is_away = True
        found.append((await check.probe()).error)

    assert found == ["", "", "HOME_DIFFERS", "HOME_DIFFERS"]


def subjects_on(pool: Away, keyring: Keyring) -> Subjects:
    return Subjects(
        pool=pool,  # type: ignore[arg-type]  # one method of it
        refused_write=str,
        redis=None,  # type: ignore[arg-type]  # not asked
        keyring=keyring,
        home=THE_HOME,
        pleo=PleoWatch(),
        on_refused=lambda _: None,
        breaker=lambda: None,
        certificate=lambda: None,
    )
