"""A PostgreSQL of its own with many grants, for what must not grow dearer with them.

All are ACTIVE, idle and alive. A thousand are sealed as the broker seals; the others are copies of
one of these, which does not open under its new name: for whoever reads no tokens of theirs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from bench.filling import fill, tenant_number
from broker.dev.rundir import RunDirectory
from broker.dev.servers import postgres_server
from broker.store.migrate import migrate
from broker.store.sealing import Keyring

SMALL: Final = 1_000
"""Grants, of which each database has at least as many."""

_COLUMNS: Final = """
    SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
    WHERE attrelid = 'grants'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'tenant'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """A database, and somebody in it who may do everything for as long as he likes."""

    url: str
    owner: asyncpg.Connection
    grants: int

    async def explain(self, query: str, *arguments: object) -> str:
        """Returns how PostgreSQL would go about a query."""
        rows = await self.owner.fetch(f"EXPLAIN {query}", *arguments)
        return "\n".join(row[0] for row in rows)


@asynccontextmanager
async def crowd(run: RunDirectory, keyset: Path, *, grants: int) -> AsyncIterator[Crowd]:
    """Starts a server with so many grants in it."""
    async with postgres_server(run, name=f"of-{grants}") as server:
        await migrate(server.url)
        await fill(server.url, Keyring.from_file(keyset), count=SMALL, told=lambda _: None)
        owner = await asyncpg.connect(server.url)
        try:
            await multiply(owner, to=grants)
            yield Crowd(url=server.url, owner=owner, grants=grants)
        finally:
            await owner.close()


async def multiply(owner: asyncpg.Connection, *, to: int) -> None:
    """Adds copies of a grant, up to so many in all."""
    columns = await owner.fetchval(_COLUMNS)
    await owner.execute(
        f"INSERT INTO grants (tenant, {columns}) "  # noqa: S608 - names from the catalogue
        f"SELECT 'copy-' || number, {columns} FROM generate_series(1, $1::integer) AS number, "
        "(SELECT * FROM grants WHERE tenant = $2) AS one",
        to - await owner.fetchval("SELECT count(*) FROM grants"),
        tenant_number(0),
    )
    await owner.execute("VACUUM ANALYZE grants")
