"""An address with several hosts: whoever can write is used, also after a failover."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from broker.domain.errors import StoreUnavailable
from broker.store.pool import PoolSettings, open_pool
from support.fleet import until_true
from support.proxy import postgres_proxy
from support.standby import StandbyPair, ask

_PID = "SELECT pg_backend_pid()"
_WRITE = "CREATE TABLE IF NOT EXISTS written (at timestamptz)"


async def test_the_primary_is_found_and_after_a_failover_its_heir(pair: StandbyPair) -> None:
    folders = [
        urlsplit(each.url).query.split("&")[0].removeprefix("host=")
        for each in (pair.standby, pair.primary)
    ]
    url = f"postgresql://postgres@/postgres?host={','.join(folders)}"
    async with open_pool(PoolSettings(url=lambda: url)) as pool:
        await pool.fetch(_WRITE)
        await pair.primary.kill()
        await ask(pair.standby.url, "SELECT pg_promote()")

        async def is_written() -> bool:
            with suppress(StoreUnavailable):
                await pool.fetch(_WRITE)
                return True
            return False

        await until_true(is_written)


async def test_a_silent_host_is_waited_for_once(database_url: str) -> None:
    async with postgres_proxy(database_url) as (silent, far), postgres_proxy(database_url) as near:
        silent.hold()
        url = far.replace(f":{silent.port}", f":{silent.port},127.0.0.1:{near[0].port}")
        async with open_pool(PoolSettings(url=lambda: url)) as pool, pool.transaction():
            await pool.fetch(_PID)

    assert (silent.accepted, near[0].accepted) == (1, 2)


async def test_a_session_that_cannot_write_any_more_is_not_used_again(database_url: str) -> None:
    async with open_pool(PoolSettings(url=lambda: database_url, size=1)) as pool:
        (before,) = await pool.fetch(_PID)
        await pool.fetch("SET default_transaction_read_only = on")

        with pytest.raises(StoreUnavailable):
            await pool.fetch(_WRITE)

        await pool.fetch(_WRITE)
        (after,) = await pool.fetch(_PID)
        assert before != after
