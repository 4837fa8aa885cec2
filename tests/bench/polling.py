"""What the poll of changes costs where nothing changes, with many grants against few.

Processor time, of PostgreSQL and of the asker.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench.crowded import SMALL, Crowd, crowd
from bench.figures import Figure, Step
from bench.spent import by_broker_and_postgres
from bench.taking import take_pairs
from broker.dev.rundir import run_directory
from broker.store import grants as statements
from broker.store.grants import PostgresGrants
from broker.store.pool import PoolSettings, open_pool
from broker.store.sealing import Keyring, generate_keyset

_POLLS: Final = 100
"""In one half of a pair: a minute and a half of three replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Polled:
    crowd: Crowd
    grants: PostgresGrants
    cursor: int
    """From before the first poll that is measured, so that nothing has changed since."""

    async def seconds(self) -> float:
        """Returns the median of some polls."""
        spent, spending = [], await by_broker_and_postgres(self.crowd.owner)
        for _ in range(_POLLS):
            began = spending.seconds()
            page = await self.grants.changes(self.cursor)
            spent.append(spending.seconds() - began)
            if page.moved:
                raise RuntimeError("an idle fleet has changed")
        return median(spent)

    async def goes_by_index(self) -> bool:
        """Whether PostgreSQL finds changes by the index made for them."""
        query = statements._CHANGES  # noqa: SLF001 - the very statement
        return "grants_changed_xid" in await self.crowd.explain(query, self.cursor)


async def polls_of_an_idle_fleet(pairs: int, step: Step, *, grants: int) -> Figure:
    """Measures a poll with so many grants."""
    with run_directory() as run, tempfile.TemporaryDirectory() as folder:
        keyset = Path(folder) / "keyset.json"
        keyset.write_text(generate_keyset())
        async with AsyncExitStack() as opened:
            small, large = [
                await _polled(
                    await opened.enter_async_context(crowd(run, keyset, grants=size)),
                    Keyring.from_file(keyset),
                    opened,
                )
                for size in (SMALL, grants)
            ]
            found = await take_pairs(pairs, step, value=large.seconds, baseline=small.seconds)
            has_index = await large.goes_by_index()
    return Figure(
        name=f"a poll of changes, idle, of {grants:,} grants",
        baseline=f"of {SMALL:,}",
        unit="processor seconds, PostgreSQL's and ours",
        aim=1.1,
        is_floor=False,
        pairs=found,
        note="by its index" if has_index else "NOT by its index",
    )


async def _polled(made: Crowd, keyring: Keyring, opened: AsyncExitStack) -> _Polled:
    settings = PoolSettings(url=lambda: made.url, size=1)
    pool = await opened.enter_async_context(open_pool(settings))
    grants = PostgresGrants(
        pool, keyring, allow_shared_subject=True, on_history_lost=lambda *_: None
    )
    page = await grants.changes(-1)
    return _Polled(crowd=made, grants=grants, cursor=page.cursor)
