"""What finding due work costs in a large table, against the same in a small one.

Each lies on a server of its own, and in both the same number of grants is due. A look takes some
of them, as a replica does at each tick of renewal, and gives them back outside of what is measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Final

import asyncpg

from bench.figures import Figure, Pair, Step
from bench.filling import fill
from broker.dev.rundir import RunDirectory, run_directory
from broker.dev.servers import postgres_server
from broker.domain.renewal import TAKEN_FOR, Planned
from broker.store import renewals
from broker.store.migrate import migrate
from broker.store.pool import PoolSettings, open_pool
from broker.store.renewals import PostgresRenewals
from broker.store.sealing import Keyring, generate_keyset

SMALL: Final = 1_000
"""Grants, of which each table has at least as many."""

_DUE: Final = 200

_TAKEN: Final = 50
"""At one look."""

_LOOKS: Final = 20
"""In one half of a pair."""

_KEEPALIVE: Final = timedelta(days=20)

# Sealed for others, which nobody who only looks for due work finds out.
_MULTIPLY: Final = """
    INSERT INTO grants
    SELECT (jsonb_populate_record(g, jsonb_build_object('tenant', 'copy-' || number))).*
    FROM grants AS g, generate_series(1, $1::integer) AS number
    WHERE g.tenant = (SELECT min(tenant) FROM grants)
"""

_MAKE_DUE: Final = """
    UPDATE grants SET renew_at = now() - interval '1 second', last_used_at = refreshed_at
    WHERE tenant IN (SELECT tenant FROM grants ORDER BY tenant DESC LIMIT $1::integer)
"""

_GIVE_BACK: Final = "UPDATE grants SET renewal_taken_until = NULL WHERE tenant = ANY($1::text[])"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    owner: asyncpg.Connection
    """Without the time limit of the broker's statements."""

    planned: PostgresRenewals

    async def seconds(self) -> float:
        """Returns the median of some looks: one in ten meets a checkpoint or a busy machine."""
        spent = []
        for _ in range(_LOOKS):
            began = time.perf_counter()
            taken = await self.planned.take(Planned.IN_USE, limit=_TAKEN)
            spent.append(time.perf_counter() - began)
            if len(taken) != _TAKEN:
                raise RuntimeError(f"{len(taken)} grants were due, and not {_TAKEN}")
            await self.owner.execute(_GIVE_BACK, [each.tenant for each in taken])
            # What updates leave behind is the same in both, and not what is asked.
            await self.owner.execute("VACUUM grants")
        return median(spent)

    async def plan(self) -> str:
        """Returns how PostgreSQL finds what is due."""
        query = renewals._TAKE[Planned.IN_USE]  # noqa: SLF001 - the very statement
        rows = await self.owner.fetch(f"EXPLAIN {query}", _TAKEN, TAKEN_FOR, timedelta(0))
        return "\n".join(row[0] for row in rows)


async def looks_for_due_work(pairs: int, step: Step, *, grants: int) -> Figure:
    """Measures a look in a table of this many."""
    found = []
    with run_directory() as run, tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as opened:
            keyset = Path(folder) / "keyset.json"
            keyset.write_text(generate_keyset())
            keyring = Keyring.from_file(keyset)
            small = await opened.enter_async_context(_table(run, keyring, SMALL))
            large = await opened.enter_async_context(_table(run, keyring, grants))
            for number in range(pairs + 1):
                if number % 2:
                    value, baseline = await large.seconds(), await small.seconds()
                else:
                    baseline, value = await small.seconds(), await large.seconds()
                if number:
                    found.append(Pair(value=value, baseline=baseline))
                    step()
            has_index = "grants_in_use" in await large.plan()
    return Figure(
        name=f"a look for due work, of {grants:,} grants",
        baseline=f"of {SMALL:,}",
        unit="seconds",
        aim=1.2,
        is_floor=False,
        pairs=tuple(found),
        note="by its index" if has_index else "NOT by its index",
    )


@asynccontextmanager
async def _table(run: RunDirectory, keyring: Keyring, grants: int) -> AsyncIterator[_Table]:
    async with postgres_server(run, name=f"of-{grants}") as server:
        await migrate(server.url)
        await fill(server.url, keyring, count=SMALL, told=lambda _: None)
        owner = await asyncpg.connect(server.url)
        try:
            await owner.execute(_MULTIPLY, grants - SMALL)
            await owner.execute(_MAKE_DUE, _DUE)
            await owner.execute("VACUUM ANALYZE grants")
            async with open_pool(PoolSettings(url=lambda: server.url)) as pool:
                planned = PostgresRenewals(pool, keepalive=_KEEPALIVE)
                yield _Table(owner=owner, planned=planned)
        finally:
            await owner.close()
