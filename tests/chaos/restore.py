"""Restores older databases under real brokers, and counts who comes back: `make drill`.

Each replica memory, each way to put a backup back, and a Pleo that is strict or has grace; and what
happens to a copy of the disks that nobody marked. The exit status is 1 where a token was presented
twice, a cause is wrong, or a grant is gone that deploy/operations.md says comes back.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Final, get_args

import grpc.aio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from broker.dev.rundir import run_directory
from chaos.backups import Way
from chaos.restored import Memory, Outcomes, Restore, is_good, restore
from chaos.stage import Mode

_AT_ONCE: Final = 2
"""Most of a restore is waiting for deadlines."""

_LATE: Final = (TimeoutError, grpc.aio.AioRpcError)
"""What a busy machine ends a restore with before there is anything to judge: it is played again,
once. What comes of tenants is told and not raised."""

_WIDTH: Final = 130

MARKED: Final = tuple(
    Restore(mode=mode, memory=memory, way=way)
    for mode, memory, way in itertools.product(get_args(Mode), get_args(Memory), get_args(Way))
)

UNMARKED: Final = Restore(mode="strict", memory="all are new", way="snapshot", is_marked=False)
"""Which shows what the mark is for, and is judged by nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came of a restore."""

    asked: Restore
    outcomes: Outcomes = field(default_factory=dict)
    failure: str = ""
    """What it was ended by before its time; empty: it came to its end."""

    @property
    def is_good(self) -> bool:
        """Whether it shows what deploy/operations.md says; of what nobody marked, nobody does."""
        if self.failure:
            return False
        return not self.asked.is_marked or is_good(self.asked, self.outcomes)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="make drill", description=__doc__)
    parser.add_argument("--each", type=int, default=10, help="tenants of each kind, a restore")
    parser.add_argument("--memory", choices=get_args(Memory), help="only this one")
    parser.add_argument("--mode", choices=get_args(Mode), help="only this Pleo")
    parser.add_argument("--way", choices=get_args(Way), help="only this way to put a backup back")
    parser.add_argument("--at-once", type=int, default=_AT_ONCE, help="restores side by side")
    parser.add_argument("--seed", type=int, default=0, help="what chance begins with")
    parser.add_argument("--json", type=Path, help="where the table is written as JSON")
    arguments = parser.parse_args()
    wanted = [asked for asked in (*MARKED, UNMARKED) if _is_wanted(asked, arguments)]
    played = asyncio.run(_play(wanted, arguments))
    _print(played)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(list(map(_plain, played)), indent=1))
    return not all(each.is_good for each in played)


def _is_wanted(asked: Restore, arguments: argparse.Namespace) -> bool:
    return all(
        getattr(arguments, name) in {None, getattr(asked, name)}
        for name in ("mode", "memory", "way")
    )


async def _play(restores: Sequence[Restore], arguments: argparse.Namespace) -> list[Played]:
    turns = asyncio.Semaphore(arguments.at_once)

    async def one(number: int, asked: Restore) -> Played:
        async with turns:
            played = await _play_one(asked, f"r{number}", arguments)
        _print([played])
        return played

    async with asyncio.TaskGroup() as tasks:
        playing = [
            tasks.create_task(one(number, asked), name="restore")
            for number, asked in enumerate(restores)
        ]
    return [each.result() for each in playing]


async def _play_one(asked: Restore, name: str, arguments: argparse.Namespace) -> Played:
    try:
        return await _once(asked, name, arguments)
    except _LATE as error:
        print(f"{name} is played again: {_in_words(error)}", file=sys.stderr)  # noqa: T201 - told
    # Broad: whatever ends one restore must not take along the others, which took twenty minutes.
    except Exception as error:  # noqa: BLE001 - see above
        return Played(asked=asked, failure=_in_words(error))
    try:
        return await _once(asked, f"{name}b", arguments)
    except Exception as error:  # noqa: BLE001 - as above
        return Played(asked=asked, failure=_in_words(error))


async def _once(asked: Restore, name: str, arguments: argparse.Namespace) -> Played:
    with run_directory() as run:
        outcomes = await restore(run, asked, name=name, each=arguments.each, seed=arguments.seed)
    return Played(asked=asked, outcomes=outcomes)


def _in_words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name} {error.details()}"
    return repr(error)


def _print(played: Sequence[Played]) -> None:
    table = Table("Pleo", "replicas", "backup", "since", box=SIMPLE_HEAD, title="Restores")
    for name in ("tenants", "alone", "consent", "not found", "other", "superseded", "twice"):
        table.add_column(name, justify="right")
    for restored in played:
        asked = restored.asked
        way = asked.way if asked.is_marked else f"{asked.way}, unmarked"
        if restored.failure:
            table.add_row(asked.mode, asked.memory, way, f"ended by {restored.failure}")
        for since, each in restored.outcomes.items():
            counts = (each.unknown, _words(each.other), each.superseded, each.twice)
            table.add_row(asked.mode, asked.memory, way, since, str(each.tenants),
                          str(each.alone), _words(each.consents), *map(str, counts))  # fmt: skip
    Console(highlight=False, width=_WIDTH).print(table)


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "0"


def _plain(played: Played) -> dict[str, object]:
    # Not `asdict` of both: it makes a counter of a counter's pairs.
    since = {name: {key.name: getattr(each, key.name) for key in fields(each)}
             for name, each in played.outcomes.items()}  # fmt: skip
    return {**asdict(played.asked), "since": since, "failure": played.failure}


if __name__ == "__main__":
    sys.exit(main())
