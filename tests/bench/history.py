"""The history at volume: its size, and what a line and a story cost: `python -m bench.history`.

Days of attempts are made in bulk, a line for each grant and lifetime of a token, in the order in
which time would make them, through the partitioned table. Then it is asked what the broker asks,
and the oldest day is dropped by the broker's own upkeep. What a month takes is reckoned from the
days that were made, since each is a partition like the others; `--days 30` makes them all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random
from statistics import median
from typing import Final

import asyncpg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.crowded import SMALL, Crowd, crowd
from bench.lines import Line, Panel, draw
from bench.spent import Spending
from broker.dev.rundir import run_directory
from broker.domain.breaker import RATE_LIMITED
from broker.domain.evidence import BREAKER_WINDOW, GUARD_WINDOW
from broker.store import fleet
from broker.store.partitions import maintain_attempts
from broker.store.pool import Pool, PoolSettings, open_pool
from broker.store.records import PostgresRecords
from broker.store.sealing import generate_keyset

MONTH: Final = 30

_CALLERS: Final = 3
"""Services that ask for one customer's token."""

_ASKED: Final = 200
"""Tenants whose story is read, and lines that are written one by one."""

_KEPT_DAYS: Final = 8
"""So old is the newest day: the upkeep drops nothing that is younger than a week."""

_PARTITION: Final = """
    CREATE TABLE refresh_attempts_{name} (LIKE refresh_attempts INCLUDING ALL);
    ALTER TABLE refresh_attempts ATTACH PARTITION refresh_attempts_{name}
    FOR VALUES FROM ('{begin} 00:00+00') TO ('{end} 00:00+00')
"""

# Each grant at its own moment of every lifetime of a token, as jitter and chance have it.
_LINES: Final = """
    INSERT INTO refresh_attempts
    SELECT 'copy-' || grants, 10 + $4::bigint, md5(grants || ' ' || $4), 'REFRESH', $4, 'ARMED',
    'token-broker-7d9f4c-' || grants % 3, at, at + interval '30 s', at + interval '0.25 s',
    'ROTATED', 200, '', interval '0.2 s', $4 + 1
    FROM (
        SELECT grants, $1::timestamptz
            + $2::interval * ((hashint4(grants)::bigint + 2147483648) / 4294967296.0) AS at
        FROM generate_series(1, $3::integer) AS grants
    ) AS each_grant ORDER BY at
"""

_DISCLOSED: Final = """
    INSERT INTO disclosures
    SELECT 'copy-' || grants, 'uri:spiffe://example.org/ns/team/sa/service-' || callers, 1, 96,
    now() - interval '1 day', now()
    FROM generate_series(1, $1::integer) AS grants, generate_series(1, $2::integer) AS callers
"""

_SIZE: Final = """
    SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
    WHERE inhparent = 'refresh_attempts'::regclass
"""

_LINE: Final = """
    INSERT INTO {table} SELECT * FROM refresh_attempts
    WHERE tenant = $1 AND started_at >= $2 LIMIT 1
"""

Told = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What was measured."""

    grants: int
    days: int
    lifetimes_a_day: int
    lines: int
    bytes_a_line: float
    """Indexes included."""

    gibibytes_a_day: float
    gibibytes_a_month: float
    """Reckoned from the days, where there are fewer."""

    disclosures: int
    disclosures_mebibytes: float
    seconds_a_slot: list[float]
    """To insert all grants' lines of one lifetime, in order."""

    line_microseconds: float
    """Processor time of PostgreSQL for one line by itself, into a day that is full."""

    empty_line_microseconds: float
    """The same into an empty table."""

    explain_milliseconds: float
    explain_p99_milliseconds: float
    weigh_milliseconds: float
    """What the guard and the breaker ask after a refusal: the last minutes of all grants."""

    drop_milliseconds: float
    """The whole upkeep, with a full day dropped."""

    dropped: int


async def measure(volume: argparse.Namespace, told: Told) -> Volume:
    """Makes so many days, and asks."""
    with run_directory() as run:
        keyset = run.path / "keyset.json"
        keyset.write_text(generate_keyset())
        async with crowd(run, keyset, grants=volume.grants + SMALL) as made:
            settings = PoolSettings(url=lambda: made.url, size=2)
            async with open_pool(settings) as pool:
                return await _measure(made, pool, volume, told)


async def _measure(made: Crowd, pool: Pool, asked: argparse.Namespace, told: Told) -> Volume:
    owner, grants, slots = made.owner, asked.grants, asked.lifetimes
    today: date = await owner.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    days = [today - timedelta(days=_KEPT_DAYS + ago) for ago in reversed(range(asked.days))]
    spent = []
    for number, day in enumerate(days):
        spent += await _fill(owner, day, asked, first=number * slots, told=told)
    size = await owner.fetchval(_SIZE)
    lines = grants * slots * len(days)
    await owner.execute(_DISCLOSED, grants, _CALLERS)
    await owner.execute("VACUUM ANALYZE refresh_attempts, disclosures")
    chance = Random(1)  # noqa: S311 - which tenants are asked about
    tenants = [f"copy-{chance.randint(1, grants)}" for _ in range(_ASKED)]
    stories = await _stories(pool, tenants)
    await _last_hour(owner, asked, today)
    weighing = await _weighing(pool)
    full, empty = await _single_lines(owner, tenants, days[-1])
    before = await _partitions(owner)
    began = time.perf_counter()
    await maintain_attempts(pool, retention=timedelta(days=_KEPT_DAYS + len(days) - 2))
    return Volume(
        grants=grants,
        days=len(days),
        lifetimes_a_day=slots,
        lines=lines,
        bytes_a_line=size / lines,
        gibibytes_a_day=size / len(days) / 2**30,
        gibibytes_a_month=size / len(days) * MONTH / 2**30,
        disclosures=grants * _CALLERS,
        disclosures_mebibytes=await _mebibytes(owner, "disclosures"),
        seconds_a_slot=spent,
        line_microseconds=full,
        empty_line_microseconds=empty,
        explain_milliseconds=1000 * median(stories),
        explain_p99_milliseconds=1000 * sorted(stories)[int(0.99 * len(stories))],
        weigh_milliseconds=weighing,
        drop_milliseconds=1000 * (time.perf_counter() - began),
        dropped=len(before - await _partitions(owner)),
    )


async def _fill(
    owner: asyncpg.Connection, day: date, asked: argparse.Namespace, *, first: int, told: Told
) -> list[float]:
    """Makes a day's partition and its lines; returns the seconds of each slot."""
    end = day + timedelta(days=1)
    await owner.execute(_PARTITION.format(name=f"{day:%Y%m%d}", begin=day, end=end))
    begin = await owner.fetchval("SELECT $1::date::timestamp AT TIME ZONE 'UTC'", day)
    slot, spent = timedelta(days=1) / asked.lifetimes, []
    for number in range(asked.lifetimes):
        began = time.perf_counter()
        await owner.execute(_LINES, begin + number * slot, slot, asked.grants, first + number)
        spent.append(time.perf_counter() - began)
        told()
    return spent


async def _stories(pool: Pool, tenants: list[str]) -> list[float]:
    records, spent = PostgresRecords(pool), []
    for tenant in tenants:
        began = time.perf_counter()
        await records.about(tenant, limit=20)
        spent.append(time.perf_counter() - began)
    return spent


async def _last_hour(owner: asyncpg.Connection, asked: argparse.Namespace, today: date) -> None:
    """Makes the lines of the hour before now, in today's partition and maybe yesterday's."""
    for day in (today - timedelta(days=1), today):
        await owner.execute("SELECT make_attempts_partition($1::date)", day)
    now, slot = await owner.fetchval("SELECT now()"), timedelta(days=1) / asked.lifetimes
    for ago in range(1, 5):
        await owner.execute(_LINES, now - ago * slot, slot, asked.grants, 1_000_000 - ago)
    await owner.execute("ANALYZE refresh_attempts")


async def _weighing(pool: Pool) -> float:
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        await pool.fetch(
            fleet._WEIGH,  # noqa: SLF001 - the very statement
            "copy-1",
            1,
            GUARD_WINDOW,
            BREAKER_WINDOW,
            RATE_LIMITED,
        )
        spent.append(time.perf_counter() - began)
    return 1000 * median(spent)


async def _single_lines(
    owner: asyncpg.Connection, tenants: list[str], day: date
) -> tuple[float, float]:
    """Returns microseconds for a line in a full day, and in an empty table like it."""
    await owner.execute("CREATE TABLE empty_attempts (LIKE refresh_attempts INCLUDING ALL)")
    pid = await owner.fetchval("SELECT pg_backend_pid()")
    spending, spent = Spending(pids=[pid]), []
    begin = await owner.fetchval("SELECT $1::date::timestamp AT TIME ZONE 'UTC'", day)
    for table in ("refresh_attempts", "empty_attempts"):
        statement = await owner.prepare(_LINE.format(table=table))
        began = spending.seconds()
        for tenant in tenants:
            await statement.fetch(tenant, begin)
        spent.append(1e6 * (spending.seconds() - began) / len(tenants))
    return spent[0], spent[1]


async def _partitions(owner: asyncpg.Connection) -> set[str]:
    rows = await owner.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits "
        "WHERE inhparent = 'refresh_attempts'::regclass"
    )
    return {row[0] for row in rows}


async def _mebibytes(owner: asyncpg.Connection, table: str) -> float:
    size = await owner.fetchval("SELECT pg_total_relation_size($1::regclass)", table)
    return float(size / 2**20)


def main() -> int:
    """Measures, and leaves `history.json` and `history.svg`."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("--grants", type=int, default=20_000, help="active all day")
    parser.add_argument("--days", type=int, default=2, help="of history")
    parser.add_argument("--lifetimes", type=int, default=96, help="of a token, in a day")
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    asked = parser.parse_args()
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(highlight=False)
    with Progress(*parts, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("lifetimes", total=asked.days * asked.lifetimes)
        volume = asyncio.run(measure(asked, lambda: progress.advance(bar)))
    write(volume, asked.results)
    for name, value in asdict(volume).items():
        if not isinstance(value, list):
            console.print(f"{name:<26} {value:,.6g}")
    return 0


def write(volume: Volume, folder: Path) -> None:
    """Writes both files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.json").write_text(json.dumps(asdict(volume), indent=2) + "\n")
    line = Line(name="seconds", values=volume.seconds_a_slot)
    title = f"to insert {volume.grants:,} lines, one lifetime of a token after the other"
    ticks = [f"day {number}" for number in range(volume.days + 1)]
    (folder / "history.svg").write_text(draw([Panel(title=title, lines=[line])], ticks=ticks))


if __name__ == "__main__":
    sys.exit(main())
