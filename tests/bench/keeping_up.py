"""How many renewals a second a broker makes, against how many it may, where Pleo takes 200 ms.

A whole process of `serve`, and more grants due than are renewed meanwhile. Pleo's sandbox counts,
in this process.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from bench.customers import QUIET, opened, put
from bench.figures import Figure, Pair, Step
from broker.dev.rundir import run_directory
from broker.dev.servers import postgres_server, valkey_server
from broker.sandbox.faults import Delay
from broker.store.migrate import migrate
from support.fleet import Fleet, fleet
from support.onboarding import execute

LATENCY_SECONDS: Final = 0.2
"""Of Pleo."""

_BEFORE_SECONDS: Final = 1.0
"""Of renewals, until it goes steadily: a tick, and the burst after a pause."""

_MAKE_DUE: Final = """
    UPDATE grants SET renew_at = clock_timestamp() - interval '1 second',
    last_used_at = clock_timestamp(), renewal_taken_until = NULL, version = version + 1
"""

_LEAVE_ALONE: Final = "UPDATE grants SET last_used_at = NULL, version = version + 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    brokers: Fleet
    rate: int
    seconds: float

    async def renewals_a_second(self) -> float:
        """Makes all due, and counts for some seconds."""
        await execute(self.brokers.database_url, _MAKE_DUE)
        first = self._presented + int(self.rate * _BEFORE_SECONDS)
        last = first + int(self.rate * self.seconds)
        await self.brokers.sandbox.until(presentations=first)
        began = time.perf_counter()
        await self.brokers.sandbox.until(presentations=last)
        spent = time.perf_counter() - began
        # What is left over of it would be counted in the next.
        await execute(self.brokers.database_url, _LEAVE_ALONE)
        await self.brokers.sandbox.until(finished=self._presented)
        return (last - first) / spent

    @property
    def _presented(self) -> int:
        return len(self.brokers.sandbox.record.presentations)


async def renewals_at_the_limit(
    pairs: int, step: Step, *, rate: int, seconds: float = 4.0
) -> Figure:
    """Measures at a limit of `rate` a second; the baseline is the limit itself."""
    found = []
    async with AsyncExitStack() as entered:
        run = entered.enter_context(run_directory())
        postgres = await entered.enter_async_context(postgres_server(run))
        valkey = await entered.enter_async_context(valkey_server(run))
        await migrate(postgres.url)
        brokers = await entered.enter_async_context(fleet(postgres.url, valkey.url, run))
        count = int(rate * (_BEFORE_SECONDS + seconds) * 1.5)
        _, held = opened(brokers.sandbox, count=count)
        await put(postgres.url, brokers.directory / "keyset.json", held)
        brokers.sandbox.faults.add(
            Delay(seconds=LATENCY_SECONDS), times=None, grant_type="refresh_token"
        )
        await brokers.start(1, BROKER_PLEO_MAX_RATE=str(rate), **QUIET)
        kept = _Kept(brokers=brokers, rate=rate, seconds=seconds)
        for number in range(pairs + 1):
            value = await kept.renewals_a_second()
            if number:
                found.append(Pair(value=value, baseline=rate))
                step()
        superseded = brokers.sandbox.record.counts().presentations_of_superseded
    return Figure(
        name=f"renewals a second, Pleo takes {1000 * LATENCY_SECONDS:.0f} ms",
        baseline=f"the limit, {rate}",
        unit="renewals a second",
        aim=0.95,
        is_floor=True,
        pairs=tuple(found),
        note=f"one replica; dead tokens shown: {superseded}",
    )
