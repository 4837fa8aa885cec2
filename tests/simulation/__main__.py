"""Runs schedules: `make simulate SEEDS=1000`, and one with its story: `make simulate SEED=7`.

With MUTANTS=1 every mutant is looked for within so many seeds.
"""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulation.mutants import BASIC, RARE
from simulation.schedule import Outcome, first_broken, run_schedule

console = Console(highlight=False)


def main() -> int:
    """Returns the exit code: 1 where a law was broken, or a mutant not found."""
    arguments = _parser().parse_args()
    if arguments.seed is not None:
        outcome = run_schedule(arguments.seed)
        _tell(outcome)
        return outcome.broken is not None
    if arguments.mutants:
        return _look_for_mutants(arguments.seeds)
    return _look_for_violations(range(arguments.first, arguments.first + arguments.seeds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one, and its story")
    parser.add_argument("--mutants", action="store_true", help="break the broker, and find it")
    return parser


def _look_for_violations(seeds: range) -> int:
    began_at, ran, presented = time.monotonic(), 0, 0
    with _progress() as progress:
        for seed in progress.track(seeds, description="schedules"):
            outcome = run_schedule(seed)
            ran, presented = ran + 1, presented + outcome.presentations
            if outcome.broken is not None:
                progress.stop()
                _tell(outcome)
                console.print(f"Seed {seed} broke a law. Again: make simulate SEED={seed}")
                return 1
    rate = ran / (time.monotonic() - began_at)
    console.print(
        f"{ran} schedules, {presented} presentations, no law broken: {rate:.1f} schedules a second"
    )
    return 0


def _look_for_mutants(most: int) -> int:
    missing = 0
    for mutant in (*BASIC, *RARE):
        with mutant():
            outcome = first_broken(range(most))
        name = mutant.__name__.replace("_", " ")
        if outcome is None or outcome.broken is None:
            missing += 1
            console.print(f"{name:45} not found in {most} seeds")
        else:
            console.print(f"{name:45} seed {outcome.seed:4}  {outcome.broken.law}")
    return missing > 0


def _tell(outcome: Outcome) -> None:
    for line in outcome.story:
        console.print(line, markup=False, soft_wrap=True)


def _progress() -> Progress:
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*parts, TimeRemainingColumn(), console=console)


if __name__ == "__main__":
    sys.exit(main())
