"""What the rounds come to: a table of the faults, and one of the kills."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from chaos.cases import Allowance, Case, Place
from chaos.load import Phase
from chaos.rounds import Judged
from support.law_seven import Ledger

_BAD: Final = "bold red"

MOST_TOLD: Final = 5
"""Bad cases whose story is printed: the others mostly tell the same."""


@dataclass(slots=True)
class Sum:
    """What the cases of one fault come to."""

    runs: int = 0
    superseded: int = 0
    lost: int = 0
    flipped: int = 0
    wrong: int = 0
    late: int = 0
    longest: float = 0.0
    excused: int = 0
    residue: int = 0

    def add(self, judged: Judged) -> None:
        """Adds one."""
        verdict = judged.verdict
        self.runs += 1
        self.superseded += verdict.superseded
        self.lost += verdict.lost
        self.flipped += verdict.flipped
        self.wrong += verdict.wrong
        self.late += verdict.late
        self.longest = max(self.longest, judged.case.longest)
        self.excused += verdict.excused
        self.residue += verdict.residue


@dataclass(slots=True)
class Kills:
    """What killed refreshes of one mode come to."""

    runs: int = 0
    places: Counter[Place] = field(default_factory=Counter)
    endings: Counter[tuple[Place, str]] = field(default_factory=Counter)
    """Of those whose pair was lost."""

    def add(self, case: Case, ending: str) -> None:
        """Adds one."""
        self.runs += 1
        if case.place is not None:
            self.places[case.place] += 1
            if ending:
                self.endings[case.place, ending] += 1

    def lost_at(self, place: Place) -> int:
        """How many pairs were lost at a place."""
        return sum(count for (at, _), count in self.endings.items() if at is place)


def sums_of(judged: Iterable[Judged]) -> dict[tuple[str, str], Sum]:
    """Returns what there is by fault and mode, in the order in which they first came."""
    sums: dict[tuple[str, str], Sum] = {}
    for each in judged:
        sums.setdefault((each.case.fault, each.case.mode), Sum()).add(each)
    return sums


def kills_of(judged: Iterable[Judged]) -> dict[str, Kills]:
    """Returns what became of killed refreshes, by mode."""
    kills: dict[str, Kills] = {}
    for each in judged:
        case = each.case
        if case.allowance is Allowance.PROCESS and not case.is_paused:
            kills.setdefault(case.mode, Kills()).add(case, each.verdict.ending)
    return kills


def print_tables(console: Console, judged: Sequence[Judged]) -> None:
    """Prints both tables, and the stories of the first bad cases."""
    for each in [each for each in judged if not each.verdict.is_good][:MOST_TOLD]:
        case, verdict = each.case, each.verdict
        console.rule(f"{case.fault}, {case.mode}: {case.tenant}")
        console.print(f"{verdict}\n{each.what_was_said}", markup=False, soft_wrap=True)
    console.print(_faults(judged), _kills(judged))


def print_load(console: Console, phases: Sequence[Phase], *, rate: float) -> None:
    """Prints what callers met while the stores were killed."""
    console.print(_load(phases, rate=rate))


def print_law_seven(console: Console, ledger: Ledger) -> None:
    """Prints what was looked through for secrets, and where any lay."""
    console.print(ledger.sums().line(), style=_BAD if ledger.hits else "")
    for each in ledger.told():
        console.print(f"  {each}", markup=False)


def plain(judged: Sequence[Judged], phases: Sequence[Phase]) -> dict[str, object]:
    """Returns the tables as JSON can hold them."""
    return {
        "faults": [
            {"fault": fault, "pleo": mode, **asdict(each)}
            for (fault, mode), each in sums_of(judged).items()
        ],
        "kills": [
            {
                "pleo": mode,
                "runs": each.runs,
                "places": dict(each.places),
                "lost": [
                    {"place": place, "ending": ending, "count": count}
                    for (place, ending), count in each.endings.items()
                ],
            }
            for mode, each in kills_of(judged).items()
        ],
        "load": [asdict(each) for each in phases],
    }


def _faults(judged: Sequence[Judged]) -> Table:
    table = _table("Faults", "fault", "Pleo")
    for name in (
        "runs",
        "superseded",
        "lost",
        "flipped",
        "wrong",
        "late",
        "longest s",
        "excused",
        "residue",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for (fault, mode), each in sums_of(judged).items():
        counts = (each.superseded, each.lost, each.flipped, each.wrong)
        rest = (str(each.late), f"{each.longest:.1f}", str(each.excused), str(each.residue))
        table.add_row(fault, mode, str(each.runs), *map(_bad, counts), *rest)
    return table


def _kills(judged: Sequence[Judged]) -> Table:
    table = _table("Killed refreshes: how far they were, and how a lost pair ended", "Pleo")
    names = ("kills", "answer unread", "lost", "pair unstored", "lost")
    for name in (*names, "retried", "ROTATION_LOST", "other"):
        table.add_column(name, justify="right", no_wrap=True)
    for mode, kills in kills_of(judged).items():
        retried, lost = (
            sum(count for (_, ending), count in kills.endings.items() if ending == name)
            for name in ("retried", "ROTATION_LOST")
        )
        other = kills.endings.total() - retried - lost
        table.add_row(
            mode,
            str(kills.runs),
            _share(kills.places[Place.SENDING], kills.runs),
            _share(kills.lost_at(Place.SENDING), kills.runs),
            _share(kills.places[Place.ANSWERED], kills.runs),
            _share(kills.lost_at(Place.ANSWERED), kills.runs),
            str(retried),
            str(lost),
            _bad(other),
        )
    return table


def _load(phases: Sequence[Phase], *, rate: float) -> Table:
    table = _table(f"Load: {rate:g} calls a second", "phase")
    names = ("calls", "errors", "degraded", "p50 ms", "p99 ms", "slowest", "presented")
    for name in (*names, "superseded", "wrong"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in phases:
        table.add_row(
            each.name,
            str(each.calls),
            f"{each.error_rate:.2%}",
            f"{each.degraded_rate:.2%}",
            f"{each.p50_milliseconds:.1f}",
            f"{each.p99_milliseconds:.1f}",
            f"{each.slowest_milliseconds:.0f}",
            str(each.presentations),
            _bad(each.superseded),
            _bad(each.wrong),
        )
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _bad(count: int) -> str:
    return f"[{_BAD}]{count}[/]" if count else "0"


def _share(count: int, whole: int) -> str:
    return f"{count} ({count / whole:.0%})" if whole else "0"
