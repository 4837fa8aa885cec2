"""What callers of the store see when PostgreSQL is away, slow, unfit, or loses an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from broker.dev.databases import database_name, on_database
from broker.dev.embedded import EmbeddedServer
from broker.domain.errors import StoreUnavailable
from broker.ports import Change, GrantStore
from broker.store.connecting import DatabaseUnfit
from broker.store.health import probe
from broker.store.migrate import migrate
from broker.store.pool import LONGEST_CALL_SECONDS, Pool, PoolSettings, open_pool
from support.grants import some_grant
from support.proxy import Proxy, postgres_proxy
from support.store_worlds import PostgresStoreWorld, postgres_world, put, until_sleeping

# And a stumble.
AT_MOST_SECONDS = LONGEST_CALL_SECONDS + 1


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[PostgresStoreWorld]:
    async with postgres_world(database_url, tmp_path) as made:
        yield made


@asynccontextmanager
async def far_world(url: str, folder: Path) -> AsyncIterator[tuple[Proxy, PostgresStoreWorld]]:
    """Gives the store behind a network that misbehaves on request."""
    async with postgres_proxy(url) as (between, far_url), postgres_world(far_url, folder) as world:
        yield between, world


@asynccontextmanager
async def direct(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("loss", ["cut", "swallow"])
async def test_a_lost_acknowledgement_is_unavailable_and_the_row_is_there(
    database_url: str, tmp_path: Path, loss: str
) -> None:
    async with far_world(database_url, tmp_path) as (between, world):
        store = world.grants()
        before = await store.read("acme")
        between.lose_answers(asked=b"acme", loss="cut" if loss == "cut" else "swallow")

        with pytest.raises(StoreUnavailable):
            await store.apply(before, Change(after=some_grant()))
        between.heal()

        seen = await store.read("acme")
        assert (seen.version, seen.grant.generation) == (1, 7)


async def test_a_connection_cut_in_the_middle_is_unavailable_and_the_next_one_works(
    database_url: str, tmp_path: Path
) -> None:
    async with (
        direct(database_url) as watching,
        far_world(database_url, tmp_path) as (between, world),
    ):
        asking = asyncio.create_task(world.pool.fetch("SELECT pg_sleep(1)"), name="asking")
        await until_sleeping(watching)
        between.cut()

        with pytest.raises(StoreUnavailable):
            await asking

        assert (await probe(world.pool)).is_writable


@pytest.mark.parametrize("when", ["before a connection", "on a connection"])
async def test_a_silent_network_is_given_up(database_url: str, tmp_path: Path, when: str) -> None:
    async with far_world(database_url, tmp_path) as (between, world):
        if when == "on a connection":
            await world.grants().read("acme")
        between.hold()
        began = time.monotonic()

        with pytest.raises(StoreUnavailable):
            await world.grants().read("acme")

        assert time.monotonic() - began < AT_MOST_SECONDS
        between.heal()
        assert (await world.grants().read("acme")).version == 0


async def test_a_cancelled_call_leaves_a_pool_that_works(
    database_url: str, world: PostgresStoreWorld
) -> None:
    asking = asyncio.create_task(world.pool.fetch("SELECT pg_sleep(5)"), name="asking")
    async with direct(database_url) as watching:
        await until_sleeping(watching)

        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    assert (await world.grants().read("acme")).version == 0


async def test_a_server_that_is_down_is_told_at_once_and_used_again_when_it_is_back(
    own_postgres: EmbeddedServer, tmp_path: Path
) -> None:
    await migrate(own_postgres.url)
    async with postgres_world(own_postgres.url, tmp_path) as world:
        store = world.grants()
        await own_postgres.kill()
        await until_gone(store)
        began = time.monotonic()

        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.read("acme")
        assert time.monotonic() - began < 2

        await own_postgres.start()
        assert (await store.read("acme")).version == 0


async def until_gone(store: GrantStore) -> None:
    """Asks until nobody answers: a session may outlive the server that it belongs to, a little."""
    async with asyncio.timeout(20):
        while True:
            try:
                await store.read("acme")
            except StoreUnavailable:
                return


async def test_sessions_that_an_administrator_ended_are_replaced(
    database_url: str, world: PostgresStoreWorld
) -> None:
    asking = asyncio.create_task(world.pool.fetch("SELECT pg_sleep(5)"), name="asking")
    async with direct(database_url) as administrator:
        await until_sleeping(administrator)
        await administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'token-broker' AND datname = current_database()"
        )

        with pytest.raises(StoreUnavailable):
            await asking

    assert (await world.grants().read("acme")).version == 0


async def test_a_locked_row_is_unavailable(database_url: str, world: PostgresStoreWorld) -> None:
    store = world.grants()
    before = await put(store, some_grant())
    async with direct(database_url) as other, other.transaction():
        await other.execute("SELECT FROM grants FOR UPDATE")

        with pytest.raises(StoreUnavailable):
            await store.apply(before, Change(after=some_grant(generation=8)))

    assert (await store.read("acme")).version == 1


async def test_a_pool_that_is_in_use_is_unavailable(database_url: str) -> None:
    async with open_pool(PoolSettings(url=lambda: database_url, size=1)) as pool:
        async with pool.transaction():
            with pytest.raises(StoreUnavailable):
                await pool.fetch("SELECT 1")

        assert await pool.fetch("SELECT 1")


async def test_a_server_without_free_connections_is_unavailable(database_url: str) -> None:
    async with direct(database_url) as administrator:
        await administrator.execute("CREATE ROLE squeezed LOGIN CONNECTION LIMIT 0")
        try:
            url = database_url.replace("postgres@", "squeezed@", 1)
            assert url != database_url
            async with open_pool(PoolSettings(url=lambda: url)) as pool:
                with pytest.raises(StoreUnavailable):
                    await pool.fetch("SELECT 1")
        finally:
            await administrator.execute("DROP ROLE squeezed")


async def test_a_database_that_is_read_only_is_readable_and_not_writable(
    database_url: str, tmp_path: Path, world: PostgresStoreWorld
) -> None:
    before = await world.grants().read("acme")
    await alter_database(database_url, "default_transaction_read_only = on")

    async with open_pool(PoolSettings(url=lambda: database_url)) as pool:
        store = PostgresStoreWorld(pool, pool, world.keyring).grants()
        assert (await store.read("acme")).version == 0
        assert not (await probe(pool)).is_writable
        with pytest.raises(StoreUnavailable):
            await store.apply(before, Change(after=some_grant()))


async def alter_database(url: str, setting: str) -> None:
    async with direct(url) as administrator:
        await administrator.execute(f'ALTER DATABASE "{database_name(url)}" SET {setting}')


async def test_commits_that_a_crash_may_undo_are_refused(database_url: str) -> None:
    await alter_database(database_url, "synchronous_commit = off")

    async with open_pool(PoolSettings(url=lambda: database_url)) as pool:
        with pytest.raises(DatabaseUnfit, match="synchronous_commit is off"):
            await pool.fetch("SELECT 1")


async def test_a_database_that_is_not_there_is_unavailable(database_url: str) -> None:
    async with open_pool(PoolSettings(url=lambda: on_database(database_url, "not_there"))) as pool:
        with pytest.raises(StoreUnavailable):
            await pool.fetch("SELECT 1")


async def test_the_address_is_asked_at_every_new_connection(database_url: str) -> None:
    addresses = iter(["postgresql://postgres@127.0.0.1:1/none", database_url])

    async with open_pool(PoolSettings(url=lambda: next(addresses))) as pool:
        with pytest.raises(StoreUnavailable):
            await pool.fetch("SELECT 1")
        assert await pool.fetch("SELECT 1")


async def test_a_statement_that_is_wrong_is_a_defect(world: PostgresStoreWorld) -> None:
    with pytest.raises(asyncpg.UndefinedColumnError):
        await world.pool.fetch("SELECT nonsense")


async def test_every_limit_is_set_on_every_connection(world: PostgresStoreWorld) -> None:
    settings = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    shown = [await shown_setting(world.pool, name) for name in settings]

    assert shown == ["3s", "2s", "10s"]


async def shown_setting(pool: Pool, name: str) -> str:
    (row,) = await pool.fetch("SELECT current_setting($1)", name)
    return str(row[0])
