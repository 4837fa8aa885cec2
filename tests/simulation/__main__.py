"""Runs schedules: `make simulate SEEDS=1000`, and one with its story: `make simulate SEED=7`.

With MUTANTS=1 every mutant is looked for in so many seeds. All cores are used unless JOBS says how
many.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulation.batches import run_batch, spread
from simulation.mutants import ALL, look_for
from simulation.schedule import Outcome, run_schedule

BATCH: Final = 50
"""Seeds at a time for a core: a second or two, so that the bar moves."""

console = Console(highlight=False)


def main() -> int:
    """Returns the exit code: 1 where a law was broken, or a mutant not found."""
    arguments = _parser().parse_args()
    if arguments.seed is not None:
        outcome = run_schedule(arguments.seed)
        _tell(outcome)
        return outcome.broken is not None
    if arguments.mutants:
        return _look_for_mutants(arguments.seeds, jobs=arguments.jobs)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    return _look_for_violations(seeds, jobs=arguments.jobs, goes_on=arguments.go_on)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, and its story")
    parser.add_argument("--mutants", action="store_true", help="break the broker, and find it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--go-on", action="store_true", help="do not stop at the first broken law")
    return parser


def _look_for_violations(seeds: range, *, jobs: int, goes_on: bool) -> int:
    began_at, ran, presented, broken = time.monotonic(), 0, 0, 0
    batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
    with spread(run_batch, batches, jobs=jobs) as done, _progress() as progress:
        bar = progress.add_task("schedules", total=len(seeds))
        for batch in done:
            ran, presented = ran + batch.ran, presented + batch.presentations
            progress.update(bar, completed=ran)
            for outcome in batch.broken:
                broken += 1
                _tell(outcome)
                console.print(f"Seed {outcome.seed} broke a law: make simulate SEED={outcome.seed}")
                if not goes_on:
                    return 1
    rate = ran / (time.monotonic() - began_at)
    found = f"{broken} broke a law" if broken else "no law broken"
    console.print(
        f"{ran} schedules, {presented} presentations, {found}: {rate:.0f} schedules a second"
        f" in {jobs} processes"
    )
    return broken > 0


def _look_for_mutants(most: int, *, jobs: int) -> int:
    missing = 0
    look = functools.partial(look_for, seeds=range(most))
    with spread(look, range(len(ALL)), jobs=jobs) as done:
        for mutant, outcome in zip(ALL, done, strict=True):
            name = mutant.__name__.replace("_", " ")
            if outcome is not None and outcome.broken is not None:
                where = f"seed {outcome.seed:5}  {outcome.profile:10}"
                console.print(f"{name:55} {where} {outcome.broken.law}", soft_wrap=True)
            else:
                missing += 1
                console.print(f"{name:55} not found in {most} seeds", soft_wrap=True)
    return missing > 0


def _tell(outcome: Outcome) -> None:
    for line in outcome.story:
        console.print(line, markup=False, soft_wrap=True)


def _progress() -> Progress:
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*parts, TimeRemainingColumn(), console=console)


if __name__ == "__main__":
    sys.exit(main())
