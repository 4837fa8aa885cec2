"""From the start of a broker to its readiness, with many grants against few.

Whole processes of `serve`. What PostgreSQL reads lies in its memory or the system's, as it does
where other replicas run.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench.crowded import SMALL, crowd
from bench.figures import Figure, Step
from bench.taking import take_pairs
from broker.dev.rundir import RunDirectory, run_directory
from broker.dev.servers import valkey_server
from broker.store.sealing import generate_keyset
from support.fleet import Fleet, fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    brokers: Fleet

    async def seconds(self) -> float:
        """Starts a broker, waits until it is ready, and ends it."""
        began = time.perf_counter()
        replica = self.brokers.launch()
        await replica.saw("broker_started")
        await self.brokers.until_ready(replica)
        spent = time.perf_counter() - began
        replica.terminate()
        await replica.ended()
        return spent


async def start_to_ready(pairs: int, step: Step, *, grants: int) -> Figure:
    """Measures a start with so many grants."""
    with run_directory() as run:
        async with AsyncExitStack() as opened:
            valkey = await opened.enter_async_context(valkey_server(run))
            small, large = [
                await _fleet_of(run, valkey.url, opened, grants=size) for size in (SMALL, grants)
            ]
            found = await take_pairs(pairs, step, value=large.seconds, baseline=small.seconds)
    return Figure(
        name=f"start to ready, of {grants:,} grants",
        baseline=f"of {SMALL:,}",
        unit="seconds",
        aim=1.1,
        is_floor=False,
        pairs=found,
    )


async def _fleet_of(
    run: RunDirectory, redis_url: str, opened: AsyncExitStack, *, grants: int
) -> _Started:
    keyset = run.path / f"keyset-{grants}.json"
    keyset.write_text(generate_keyset())
    made = await opened.enter_async_context(crowd(run, keyset, grants=grants))
    brokers = await opened.enter_async_context(fleet(made.url, redis_url, run))
    (brokers.directory / "keyset.json").write_text(keyset.read_text())
    # A million rows hold no secret of the sandbox's, and reading them all takes long.
    brokers.is_inspected = True
    return _Started(brokers=brokers)
