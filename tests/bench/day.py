"""A day of many grants in virtual time, on the broker's own scheduling: `python -m bench.day`.

Three replicas renew with `service.renewing`, wait at `service.turnstile`, note use with
`service.usage`, and share a breaker through `service.fleet`; Pleo is out for an hour. A twentieth
of the grants is synchronised every five minutes all day, a quarter is used by people at work, the
others are asked for about once a day. Who gets nothing asks again after half a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median, pstdev

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.day_pleo import LIFETIME
from bench.day_story import Day
from bench.lines import Line, Panel, draw
from support.virtual_time import run_virtual


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of the day."""

    grants: int
    limit: float
    """Refreshes a second, of the fleet."""

    refreshes: int
    planned: int
    most_a_second: int
    """Refreshes in the busiest second of all."""

    calls: dict[str, int]
    """By how they ended."""

    waited_share: float
    """Of the calls outside of the outage and its catching up."""

    wait_median: float
    """Seconds, of those."""

    wait_p99: float
    wait_longest: float
    failed_outside: int
    """Calls that got nothing, outside of the outage and its catching up."""

    caught_up_after: float
    """Minutes from the end of the outage until nobody is refused for the want of a fresh token."""

    most_after_outage: int
    """Refreshes in the busiest second of catching up."""

    backlog_after_outage: int
    """Grants in use past their renewal time, at the most."""

    busiest_later: float
    """Refreshes a second in the busiest minute of two hours that begin a lifetime after it."""

    usual_later: float
    """Refreshes a second in all of that time."""

    uneven_later: float
    """How much the minutes of it differ: their standard deviation, with the mean as one."""


def figures_of(day: Day) -> Figures:
    """Adds the day up."""
    told, asked = day.told, day.asked
    begins, ends = 60 * asked.outage, 60 * (asked.outage + asked.outage_hours)
    after = [minute for minute in told.failed if minute >= ends]
    caught_up = max(after, default=ends - 1) + 1
    trouble = range(int(begins), int(caught_up) + 1)
    waits = sorted(spent for at, spent in told.waits if at // 60 not in trouble) or [0.0]
    outside = sum(told.calls.values()) * (1 - len(trouble) / (60 * asked.hours))
    seconds = range(60 * int(ends), 60 * int(caught_up) + 60)
    settling = int(ends) + int(LIFETIME.total_seconds() // 60)
    later = _by_minute(told.refreshes, range(settling, settling + 120))
    return Figures(
        grants=asked.grants,
        limit=asked.rate,
        refreshes=told.refreshes.total(),
        planned=told.planned.total(),
        most_a_second=max(told.refreshes.values(), default=0),
        calls=dict(told.calls),
        waited_share=len(waits) / outside,
        wait_median=median(waits),
        wait_p99=waits[int(0.99 * len(waits))],
        wait_longest=waits[-1],
        failed_outside=sum(told.failed[each] for each in told.failed if each not in trouble),
        caught_up_after=caught_up - ends,
        most_after_outage=max((told.refreshes[each] for each in seconds), default=0),
        backlog_after_outage=max(told.backlog[int(begins) :], default=0),
        busiest_later=max(later),
        usual_later=mean(later),
        uneven_later=pstdev(later) / mean(later),
    )


def _by_minute(counted: Counter[int], minutes: range) -> list[float]:
    """Returns how many a second there were, in each minute."""
    return [sum(counted[60 * each + past] for past in range(60)) / 60 for each in minutes]


def plot(day: Day) -> str:
    """Returns the day as an SVG, by the minute."""
    told, minutes = day.told, range(60 * day.asked.hours)

    waited = Counter(int(at // 60) for at, _ in told.waits)
    panels = [
        Panel(
            title="refreshes a second, and the limit",
            lines=[
                Line(name="all", values=_by_minute(told.refreshes, minutes)),
                Line(
                    name="because somebody asked",
                    values=_by_minute(told.refreshes - told.planned, minutes),
                ),
            ],
            limit=day.asked.rate,
        ),
        Panel(
            title="calls a minute that",
            lines=[
                Line(name="waited", values=[waited[each] for each in minutes]),
                Line(name="got nothing", values=[told.failed[each] for each in minutes]),
                Line(name="got an old token", values=[told.degraded[each] for each in minutes]),
            ],
        ),
        Panel(
            title="grants in use past their renewal time",
            lines=[Line(name="due", values=told.backlog)],
        ),
    ]
    return draw(panels, ticks=[f"{each}:00" for each in range(0, day.asked.hours + 1, 2)])


def main() -> int:
    """Lets a day go by, and leaves `day.json` and `day.svg`."""
    parser = argparse.ArgumentParser(prog="python -m bench.day", description=__doc__)
    parser.add_argument("--grants", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=50.0, help="refreshes a second, of all")
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--outage", type=float, default=13.0, help="the hour at which it begins")
    parser.add_argument("--outage-hours", type=float, default=1.0, help="0: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    asked = parser.parse_args()
    console, parts = Console(highlight=False), (TextColumn("{task.description}"), BarColumn())
    with Progress(*parts, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("minutes of the day", total=60 * asked.hours)
        day = Day(asked)
        run_virtual(day.run(lambda: progress.advance(bar)), debug=False)
    found = asdict(figures_of(day))
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "day.json").write_text(json.dumps(found, indent=2) + "\n")
    (asked.results / "day.svg").write_text(plot(day))
    for name, value in found.items():
        console.print(f"{name:<22} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
