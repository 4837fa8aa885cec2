"""What finding due work costs in a large table, against the same in a small one.

Each lies on a server of its own, and in all the same number of grants is due. What a replica takes
is given back outside of what is measured: processor time, of PostgreSQL and of the asker. A look
asks for grants in use; a tick of renewal for idle ones as well, since those in use do not fill it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from bench.crowded import SMALL, Crowd, crowd
from bench.figures import Figure, Pair, Step
from bench.spent import by_broker_and_postgres
from bench.taking import take_pairs
from broker.dev.rundir import run_directory
from broker.domain.renewal import TAKEN_FOR, Planned
from broker.store import renewals
from broker.store.pool import PoolSettings, open_pool
from broker.store.renewals import PostgresRenewals
from broker.store.sealing import generate_keyset

_IN_USE: Final = 60
"""Grants in use that are due, and as many idle ones beside them."""

_TAKEN: Final = 50
"""At one look."""

_TICK: Final = 100
"""At one tick: two seconds of work at the default rate."""

_LOOKS: Final = 20
"""In one half of a pair."""

_KEEPALIVE: Final = timedelta(days=20)

# In no order: what is due lies on as many pages as there are.
_MAKE_DUE: Final = """
    UPDATE grants SET renew_at = now() - interval '1 second', last_used_at = refreshed_at
    WHERE tenant IN (SELECT tenant FROM grants ORDER BY md5(tenant) LIMIT $1::integer)
"""

_MAKE_OLD: Final = """
    UPDATE grants SET refreshed_at = now() - interval '21 days'
    WHERE tenant IN (SELECT tenant FROM grants ORDER BY md5(tenant) DESC LIMIT $1::integer)
"""

_GIVE_BACK: Final = "UPDATE grants SET renewal_taken_until = NULL WHERE tenant = ANY($1::text[])"

_INDEXES: Final = {Planned.IN_USE: "grants_in_use", Planned.IDLE: "grants_idle"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    crowd: Crowd
    planned: PostgresRenewals

    async def seconds(self, *, is_tick: bool) -> float:
        """Returns the median of some looks: one in ten meets a checkpoint."""
        spent, spending = [], await by_broker_and_postgres(self.crowd.owner)
        for _ in range(_LOOKS):
            began = spending.seconds()
            taken = await (self._tick() if is_tick else self._look())
            spent.append(spending.seconds() - began)
            await self.crowd.owner.execute(_GIVE_BACK, taken)
            # What updates leave behind is the same in both, and not what is asked.
            await self.crowd.owner.execute("VACUUM grants")
        return median(spent)

    async def _look(self) -> Sequence[str]:
        return await self._take(Planned.IN_USE, limit=_TAKEN, wanted=_TAKEN)

    async def _tick(self) -> Sequence[str]:
        in_use = await self._take(Planned.IN_USE, limit=_TICK, wanted=_IN_USE)
        left = _TICK - len(in_use)
        return [*in_use, *await self._take(Planned.IDLE, limit=left, wanted=left)]

    async def _take(self, which: Planned, *, limit: int, wanted: int) -> Sequence[str]:
        taken = [each.tenant for each in await self.planned.take(which, limit=limit)]
        if len(taken) != wanted:
            raise RuntimeError(f"{len(taken)} grants were due, and not {wanted}")
        return taken

    async def goes_by_index(self) -> bool:
        """Whether PostgreSQL finds what is due by the indexes made for it."""
        ages = {Planned.IN_USE: timedelta(0), Planned.IDLE: _KEEPALIVE}
        queries = renewals._TAKE  # noqa: SLF001 - the very statements
        plans = [
            (index, await self.crowd.explain(queries[which], _TAKEN, TAKEN_FOR, ages[which]))
            for which, index in _INDEXES.items()
        ]
        return all(f"using {index} on grants" in plan for index, plan in plans)


async def looks_for_due_work(pairs: int, step: Step, *, sizes: Sequence[int]) -> Figure:
    """Measures a look, in tables of these sizes; the last one counts."""
    return await _measure("a look for due work", pairs, step, sizes=sizes, is_tick=False)


async def renewal_ticks(pairs: int, step: Step, *, sizes: Sequence[int]) -> Figure:
    """Measures a tick of renewal, in tables of these sizes; the last one counts."""
    return await _measure("a renewal tick", pairs, step, sizes=sizes, is_tick=True)


async def _measure(
    name: str, pairs: int, step: Step, *, sizes: Sequence[int], is_tick: bool
) -> Figure:
    found: list[tuple[Pair, ...]] = []
    with run_directory() as run, tempfile.TemporaryDirectory() as folder:
        keyset = Path(folder) / "keyset.json"
        keyset.write_text(generate_keyset())
        async with AsyncExitStack() as opened:
            made = [
                await opened.enter_async_context(crowd(run, keyset, grants=size))
                for size in (SMALL, *sizes)
            ]
            small, *others = [await _prepared(each, opened) for each in made]
            baseline = partial(small.seconds, is_tick=is_tick)
            for each in others:
                value = partial(each.seconds, is_tick=is_tick)
                told = step if each is others[-1] else _nobody
                found.append(await take_pairs(pairs, told, value=value, baseline=baseline))
            has_index = all([await each.goes_by_index() for each in others])
    return Figure(
        name=f"{name}, of {sizes[-1]:,} grants",
        baseline=f"of {SMALL:,}",
        unit="processor seconds, PostgreSQL's and ours",
        aim=1.2,
        is_floor=False,
        pairs=found[-1],
        note=f"{'by its index' if has_index else 'NOT by its index'}; {_told(sizes, found)}",
    )


def _nobody() -> None:
    """The progress bar is the last table's."""


def _told(sizes: Sequence[int], found: Sequence[tuple[Pair, ...]]) -> str:
    ratios = [median(each.ratio for each in pairs) for pairs in found]
    return ", ".join(f"of {size:,}: {ratio:.3f}" for size, ratio in zip(sizes, ratios, strict=True))


async def _prepared(made: Crowd, opened: AsyncExitStack) -> _Table:
    await made.owner.execute(_MAKE_DUE, _IN_USE)
    await made.owner.execute(_MAKE_OLD, _IN_USE)
    await made.owner.execute("VACUUM ANALYZE grants")
    # One connection, so that its process is known before it is first asked.
    settings = PoolSettings(url=lambda: made.url, size=1)
    pool = await opened.enter_async_context(open_pool(settings))
    await pool.fetch("SELECT")
    return _Table(crowd=made, planned=PostgresRenewals(pool, keepalive=_KEEPALIVE))
