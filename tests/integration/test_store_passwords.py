"""The database's password is changed while a broker's pool is open: the steps of operations.md."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from broker.dev.embedded import EmbeddedServer
from broker.domain.errors import StoreUnavailable
from broker.store.pool import PoolSettings, open_pool
from support.standby import ask

ROLE = "token_broker_password_test"

_END = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1"


@pytest.fixture
async def server(own_postgres: EmbeddedServer) -> EmbeddedServer:
    """One that asks that role for its password."""
    await ask(own_postgres.url, f"CREATE ROLE {ROLE} LOGIN PASSWORD 'before'")
    file = Path(str(await ask(own_postgres.url, "SHOW hba_file")))
    file.write_text(f"local all {ROLE} scram-sha-256\n{file.read_text()}")
    await ask(own_postgres.url, "SELECT pg_reload_conf()")
    return own_postgres


def address(server: EmbeddedServer, password: str) -> str:
    """Returns the server's address, as that role."""
    return server.url.replace("//postgres@", f"//{ROLE}:{quote(password)}@")


async def test_a_changed_password_is_taken_from_the_file_at_the_next_connection(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    file = tmp_path / "database-url"
    file.write_text(address(server, "before"))
    async with open_pool(PoolSettings(url=file.read_text, size=1)) as pool:
        await pool.fetch("SELECT 1")
        await ask(server.url, f"ALTER ROLE {ROLE} PASSWORD 'after'")
        assert await pool.fetch("SELECT 1"), "an open connection goes on"
        await ask(server.url, _END, ROLE)
        with suppress(StoreUnavailable):
            await pool.fetch("SELECT 1")  # the one that was ended
        with pytest.raises(StoreUnavailable):
            await pool.fetch("SELECT 1")

        file.write_text(address(server, "after"))

        assert await pool.fetch("SELECT 1")
