"""Hundreds of calls a second while Valkey, then PostgreSQL, is killed and comes back.

Tenants hold tokens of a minute, as short as are believed, and become due one after the other, so
that a few per cent of the calls meet a refresh and the rest come from memory. The callers are in a
process of their own (`load_client`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import quantiles
from typing import Final

from broker.dev.rundir import RunDirectory
from chaos.cases import Case
from chaos.load_client import Order, Told, written
from chaos.stage import Stage, stage
from support.onboarding import execute
from support.source import ROOT

REPLICAS: Final = 3

TENANTS: Final = 300
"""Seven become due each second."""

TOKEN_LIFE: Final = timedelta(seconds=60)
"""The shortest that is believed: renewed after 40 seconds."""

WARM_UP_SECONDS: Final = 5.0
"""In which every replica meets every tenant; not counted."""

_SPREAD: Final = """
    UPDATE grants SET renew_at = due, expires_at = due + interval '20 seconds',
    version = version + 1, changed_xid = pg_current_xact_id()
    FROM (SELECT tenant AS of, clock_timestamp() + random() * interval '40 seconds' AS due
        FROM grants) AS spread
    WHERE tenant = of
"""
"""As if they had been rotated one after the other in the last forty seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A span of the run, and what its calls came to."""

    name: str
    calls: int
    error_rate: float
    degraded_rate: float
    reasons: dict[str, int]
    p50_milliseconds: float
    p99_milliseconds: float
    slowest_milliseconds: float
    presentations: int
    superseded: int
    wrong: int
    """A dead token as a fresh one, or an error that nothing here justifies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A phase while it runs."""

    name: str
    begin: float
    end: float


_RIGHT: Final = frozenset(
    {
        "",
        "STORE_UNAVAILABLE",
        "REFRESH_IN_PROGRESS",
        "REFRESH_OUTCOME_UNKNOWN",
        "PROVIDER_UNAVAILABLE",
        "DEADLINE_EXCEEDED",
    }
)


async def run_load(run: RunDirectory, *, rate: float, seconds: float, seed: int) -> list[Phase]:
    """Returns the phases: before, during and after either outage, `seconds` each."""
    async with stage(run, "load", mode="strict", seed=seed) as made:
        replicas = await made.start(REPLICAS)
        cases = await _due_one_after_the_other(made)
        order = Order(
            targets=tuple(each.target for each in replicas),
            tenants=tuple(each.tenant for each in cases),
            rate=rate,
            seed=seed,
        )
        async with _callers(order) as callers:
            await asyncio.sleep(WARM_UP_SECONDS)
            spans = await _outages(made, seconds)
            told = await _finished(callers)
        return [_phase(made, cases, span, told) for span in spans]


async def _due_one_after_the_other(made: Stage) -> list[Case]:
    cases = await made.accepted_cases("load", TENANTS)
    await execute(made.brokers.database_url, _SPREAD)
    server = made.brokers.sandbox.server
    server.settings = replace(server.settings, access_token_lifetime=TOKEN_LIFE)
    return cases


async def _outages(made: Stage, seconds: float) -> list[Span]:
    spans = [await _span("before", seconds)]
    await made.valkey.kill()
    spans.append(await _span("Valkey killed", seconds))
    await made.valkey.start()
    spans.append(await _span("Valkey back", seconds))
    await made.postgres.kill()
    spans.append(await _span("PostgreSQL killed", seconds))
    await made.postgres.start()
    spans.append(await _span("PostgreSQL back", seconds))
    return spans


async def _span(name: str, seconds: float) -> Span:
    begin = time.time()
    await asyncio.sleep(seconds)
    return Span(name=name, begin=begin, end=time.time())


@asynccontextmanager
async def _callers(order: Order) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chaos.load_client",
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdin is not None:
            process.stdin.write(written(order).encode())
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _finished(callers: asyncio.subprocess.Process) -> list[Told]:
    # Python 3.11 leaves it open where nothing is written.
    output, _ = await callers.communicate(b"")
    return [Told(*each) for each in json.loads(output)]


def _phase(made: Stage, cases: Sequence[Case], span: Span, told: Sequence[Told]) -> Phase:
    calls = [each for each in told if span.begin <= each.due_at < span.end]
    times = sorted(1000 * each.seconds for each in calls)
    centiles = quantiles(times, n=100)
    shown = [
        each
        for each in made.brokers.sandbox.record.presentations
        if span.begin <= each.arrived_at.timestamp() < span.end
    ]
    ends = _ends_of_generations(made, cases)
    return Phase(
        name=span.name,
        calls=len(calls),
        error_rate=sum(bool(each.reason) for each in calls) / len(calls),
        degraded_rate=sum(each.is_degraded for each in calls) / len(calls),
        reasons=dict(Counter(each.reason for each in calls if each.reason)),
        p50_milliseconds=centiles[49],
        p99_milliseconds=centiles[98],
        slowest_milliseconds=times[-1],
        presentations=len(shown),
        superseded=sum(each.was_superseded for each in shown),
        wrong=sum(_is_wrong(each, ends) for each in calls),
    )


def _ends_of_generations(made: Stage, cases: Sequence[Case]) -> dict[str, list[float]]:
    """Returns when each generation of a tenant was known to be over, the first one first."""
    record = made.brokers.sandbox.record
    return {
        case.tenant: [
            each.finished_at.timestamp()
            for each in record.of(case.customer.company)
            if each.outcome == "rotated" and each.finished_at is not None
        ]
        for case in cases
    }


def _is_wrong(told: Told, ends: dict[str, list[float]]) -> bool:
    if told.reason:
        return told.reason not in _RIGHT
    over = bisect_left(ends[told.tenant], told.due_at)
    return not told.is_degraded and told.generation <= over
