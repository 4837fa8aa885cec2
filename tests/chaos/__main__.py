"""Plays rounds of faults on real processes: `make chaos ROUNDS=3 SEED=7`; then the load.

The exit status is 1 where anything was shown twice, lost, flipped or answered wrongly, or a secret
lies where it must not (law 7).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from broker.dev.rundir import run_directory
from chaos.load import Phase, run_load
from chaos.rounds import FULL, Judged, play
from chaos.tables import plain, print_law_seven, print_load, print_tables
from support.law_seven import LEDGER

_WIDTH: Final = 130
"""What the widest table takes, also where the output goes into a file."""

console = Console(highlight=False, width=_WIDTH)


def main() -> int:
    """Returns the exit code."""
    arguments = _parser().parse_args()
    judged = asyncio.run(_play(arguments.rounds, arguments.seed))
    print_tables(console, judged)
    phases = _load(arguments) if arguments.seconds else []
    print_law_seven(console, LEDGER)
    if arguments.json is not None:
        document = plain(judged, phases) | {"law_seven": LEDGER.sums().plain()}
        arguments.json.write_text(json.dumps(document, indent=1))
    is_load_bad = any(each.superseded or each.wrong for each in phases)
    return is_load_bad or bool(LEDGER.hits) or any(not each.verdict.is_good for each in judged)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault comes")
    parser.add_argument("--seed", type=int, default=0, help="what chance begins with")
    parser.add_argument("--rate", type=float, default=500, help="calls a second, of the load")
    parser.add_argument("--seconds", type=float, default=20, help="a phase of the load; 0: no load")
    parser.add_argument("--json", type=Path, help="where the tables are written as JSON")
    return parser


async def _play(rounds: int, seed: int) -> list[Judged]:
    judged: list[Judged] = []
    with _progress() as progress:
        playing = progress.add_task("rounds", total=rounds)

        def tell(cases: Sequence[Judged]) -> None:
            bad = sum(not each.verdict.is_good for each in cases)
            first = cases[0].case
            what = f"{first.fault} … ({first.mode}): {len(cases)} cases judged, {bad} of them bad"
            progress.console.print(what)

        for number in range(rounds):
            with run_directory() as run:
                judged += await play(run, FULL, seed=seed + number, told=tell)
            progress.advance(playing)
    return judged


def _load(arguments: argparse.Namespace) -> list[Phase]:
    rate, seconds = arguments.rate, arguments.seconds
    console.print(f"Load: {rate:g} calls a second, five phases of {seconds:g} s")
    with run_directory() as run:
        phases = asyncio.run(run_load(run, rate=rate, seconds=seconds, seed=arguments.seed))
    print_load(console, phases, rate=rate)
    return phases


def _progress() -> Progress:
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*parts, TimeElapsedColumn(), console=console)


if __name__ == "__main__":
    sys.exit(main())
