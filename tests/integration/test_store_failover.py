"""The store on a standby, and after its promotion: reads go on, and the past is another at once."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.dev.embedded import EmbeddedServer
from broker.domain.errors import StoreUnavailable
from broker.ports import Change
from broker.store.migrate import migrate
from broker.store.pool import PoolSettings, open_pool
from support.grants import some_grant
from support.standby import StandbyPair, ask
from support.store_worlds import PostgresStoreWorld, postgres_world, put

_CHECKPOINTER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"


@asynccontextmanager
async def filled(pair: StandbyPair, folder: Path) -> AsyncIterator[PostgresStoreWorld]:
    """The primary, with a row that the standby has too."""
    await migrate(pair.url)
    async with postgres_world(pair.url, folder) as world:
        await put(world.grants(), some_grant())
        await pair.cut()
        yield world


@asynccontextmanager
async def without_checkpoints(server: EmbeddedServer) -> AsyncIterator[None]:
    """Stops the process that makes them, while the block runs."""
    checkpointer = await ask(server.url, _CHECKPOINTER)
    assert isinstance(checkpointer, int)
    os.kill(checkpointer, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(checkpointer, signal.SIGCONT)


async def test_a_standby_answers_reads_and_says_that_it_has_no_say(
    pair: StandbyPair, tmp_path: Path
) -> None:
    async with (
        filled(pair, tmp_path) as world,
        open_pool(PoolSettings(url=lambda: pair.standby.url)) as pool,
    ):
        read = await world.grants().read("acme")
        store = PostgresStoreWorld(pool, pool, world.keyring).grants()

        seen = await store.read("acme")

        assert (seen.grant, seen.past.live) == (read.grant, "")
        assert not (await store.changes((await store.changes(-1)).cursor)).is_rewound
        with pytest.raises(StoreUnavailable):
            await store.apply(seen, Change(after=read.grant))


async def test_a_standby_that_lags_behind_is_no_database_gone_back(
    pair: StandbyPair, tmp_path: Path
) -> None:
    async with (
        filled(pair, tmp_path) as world,
        open_pool(PoolSettings(url=lambda: pair.standby.url)) as pool,
    ):
        await put(world.grants(), some_grant(tenant="later", subject=None))
        cursor = (await world.grants().changes(-1)).cursor

        page = await PostgresStoreWorld(pool, pool, world.keyring).grants().changes(cursor)

        assert (page.is_rewound, page.cursor) == (False, cursor)


async def test_a_promoted_standby_is_another_past_before_its_first_checkpoint(
    pair: StandbyPair, tmp_path: Path
) -> None:
    async with filled(pair, tmp_path) as world:
        store = world.grants()
        before, cursor = await store.read("acme"), (await store.changes(-1)).cursor
        async with without_checkpoints(pair.standby):
            await pair.fail_over()

            after = await store.read("acme")

        assert (after.grant, after.version) == (before.grant, before.version)
        assert after.past.live not in {"", before.past.live}
        assert await store.apply(before, Change(after=some_grant(generation=8))) is None
        assert (await store.changes(cursor)).is_rewound
