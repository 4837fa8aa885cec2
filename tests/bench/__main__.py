"""Measures what the broker costs: `make bench`.

Each figure is a ratio against a baseline that is measured in turn with it, in the same run, so that
a slow or a busy machine shows in both. Writes a plot and all pairs in JSON beside the table. The
exit status is 0 also where an aim is missed, for that hangs on the machine too; `--strict`: 1.

Measurements of their own, which ask whether a call fails rather than what it costs, and take their
own arguments: `python -m bench.key_rotation`, `bench.replacing`, `bench.consumer`.
`bench.observing` takes apart what metrics, log and traces cost, `bench.history` fills days of the
history, and `bench.day` lets a day of renewals go by in virtual time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import (
    client,
    drawing,
    due,
    herd,
    hot_path,
    keeping,
    keeping_up,
    polling,
    rotating,
    starting,
    telemetry,
    watch,
)
from bench.figures import Figure, Measurement

RESULTS: Final = Path("bench-results")

_WIDTH: Final = 180


def measurements(*, is_full: bool) -> Sequence[Measurement]:
    """Returns all that can be measured; `is_full`: in more and larger pairs."""
    pairs, calls = (20, 5000) if is_full else (6, 2000)
    copies, grants = (50_000, 1_000_000) if is_full else (5_000, 100_000)
    few, sizes, rounds = (10, (100_000, grants), 20) if is_full else (5, (grants,), 5)
    return (
        Measurement(
            name="clear", pairs=pairs, measure=partial(hot_path.over_clear_text, calls=calls)
        ),
        Measurement(
            name="mtls", pairs=pairs, measure=partial(hot_path.over_mutual_tls, calls=calls)
        ),
        Measurement(
            name="telemetry", pairs=pairs, measure=partial(telemetry.over_none, calls=calls)
        ),
        Measurement(name="tail", pairs=pairs, measure=partial(hot_path.tail_at_half, calls=calls)),
        Measurement(name="memory", pairs=3, measure=partial(keeping.kept_tokens, copies=copies)),
        Measurement(name="due", pairs=few, measure=partial(due.looks_for_due_work, sizes=sizes)),
        Measurement(name="tick", pairs=few, measure=partial(due.renewal_ticks, sizes=sizes)),
        Measurement(
            name="poll", pairs=few, measure=partial(polling.polls_of_an_idle_fleet, grants=grants)
        ),
        Measurement(
            name="start", pairs=few, measure=partial(starting.start_to_ready, grants=grants)
        ),
        Measurement(name="herd", pairs=few, measure=partial(herd.slowest_of_a_herd, callers=1_000)),
        Measurement(
            name="rate", pairs=few, measure=partial(keeping_up.renewals_at_the_limit, rate=50)
        ),
        Measurement(
            name="rotation",
            pairs=few,
            measure=partial(rotating.rotations_against_bare_calls, rounds=rounds),
        ),
        Measurement(name="client", pairs=20, measure=partial(client.kept_token, gets=5_000)),
        Measurement(name="header", pairs=20, measure=partial(client.header, requests=500)),
        Measurement(name="watch", pairs=3, measure=watch.told_of_a_rotation),
    )


async def run(chosen: Sequence[Measurement], console: Console) -> Sequence[Figure]:
    """Takes one measurement after the other, with a progress bar."""
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    figures = []
    with Progress(*parts, TimeElapsedColumn(), console=console) as progress:
        bars = [progress.add_task(each.name, total=each.pairs, start=False) for each in chosen]
        for each, bar in zip(chosen, bars, strict=True):
            progress.start_task(bar)
            step = partial(progress.advance, bar)
            figures.append(await each.measure(each.pairs, step))
    return figures


def write(figures: Sequence[Figure], folder: Path) -> None:
    """Writes `figures.json` and `figures.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "figures": [each.as_json() for each in figures],
    }
    (folder / "figures.json").write_text(json.dumps(found, indent=2) + "\n")
    (folder / "figures.svg").write_text(drawing.draw(figures))


def table(figures: Sequence[Figure]) -> Table:
    """Returns the figures as they are shown."""
    shown = Table("figure", "baseline", "ratio", "spread", "aim", "met", "pairs", "note")
    for each in figures:
        low, high = each.spread
        shown.add_row(
            each.name,
            each.baseline,
            f"{each.ratio:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{'≥' if each.is_floor else '≤'} {each.aim:g}",
            "yes" if each.is_met else "no",
            str(len(each.pairs)),
            each.note,
        )
    return shown


def main(given: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    names = [each.name for each in measurements(is_full=False)]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="more and larger pairs")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--strict", action="store_true", help="fail where an aim is missed")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(given)
    # In a file, as wide as the table is.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    available = measurements(is_full=arguments.full)
    chosen = [each for each in available if each.name in arguments.only]
    # The loop that `serve` runs on.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(run(chosen, console))
    write(figures, arguments.results)
    console.print(table(figures))
    console.print(f"{arguments.results / 'figures.svg'}, and all pairs in figures.json")
    return 1 if arguments.strict and not all(each.is_met for each in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
