"""What was seen of faults, in a table for people and in one for programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chaos.lights_faults import Fault
from support.source import ROOT

_RUNBOOK: Final = (ROOT / "deploy" / "runbook.md").read_text()

_COLUMNS: Final = (
    "fault",
    "lights, first bad after",
    "alerts, first true after",
    "metrics that moved most",
    "status",
    "explain",
    "what the runbook has one do",
    "all well after",
    "missing",
    "false",
    "we were late by",
)

HEAD: Final = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"

_MOST_METRICS: Final = 4
"""In the table; all of them are in the JSON."""

_TALKS_OF_TROUBLE: Final = re.compile(
    r"_(answered|overdue|delayed|failures|written|degraded|reauth|breaker|calls|waited|asked)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was seen of a fault."""

    fault: Fault
    lights: Mapping[str, float]
    alerts: Mapping[str, float]
    back: float | None
    """Seconds until all was well again; None: it never was."""

    left: frozenset[str]
    metrics: Mapping[str, float]
    status: str
    story: str
    skipped: str = ""
    late: float = 0.0
    """Seconds that this process stood still at worst, and with it the proxies before the stores:
    what is seen then may be the machine's."""

    spoilt: int = 0
    """Earlier runs that were thrown away for that."""

    @property
    def missing(self) -> set[str]:
        """What should have been seen."""
        if self.skipped:
            return set()
        return set(self.fault.lights | self.fault.alerts) - {*self.lights, *self.alerts}

    @property
    def false(self) -> set[str]:
        """What should not."""
        known = self.fault.lights | self.fault.alerts | self.fault.may
        return {*self.lights, *self.alerts} - known

    @property
    def is_good(self) -> bool:
        """Neither, and all is well again."""
        return bool(self.skipped) or not (self.missing or self.false or self.back is None)


def runbook_of(fault: Fault) -> str:
    """Returns what the runbook says to do, of the alerts that a fault must raise.

    Raises:
        LookupError: it has no such section.
    """
    names = sorted(fault.alerts) or ([fault.section] if fault.section else [])
    return " / ".join(f"{name}: {_deed(name)}" for name in names) or "nothing"


def _deed(section: str) -> str:
    found = re.search(
        rf"^## {section}$.*?^- \*\*Do\*\*: (.+?)$", _RUNBOOK, re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise LookupError(section)
    return re.sub(r"\]\([^)]*\)", "]", found[1])


def row(told: Told) -> str:
    """Returns a line of the table, in Markdown."""
    if told.skipped:
        return f"| {told.fault.name} | skipped: {told.skipped} |"
    back = f"{told.back:.1f} s" if told.back is not None else f"NOT: {sorted(told.left)}"
    cells = (
        told.fault.name,
        _seconds(told.lights),
        _seconds(told.alerts),
        "<br>".join(_moved_most(told.metrics)) or "none",
        told.status,
        told.story.partition("\n")[0],
        runbook_of(told.fault),
        back,
        ", ".join(sorted(told.missing)) or "0",
        ", ".join(sorted(told.false)) or "0",
        f"{told.late:.1f} s" + (f", {told.spoilt} spoilt before" if told.spoilt else ""),
    )
    return f"| {' | '.join(each.replace('|', '/') for each in cells)} |"


def _seconds(found: Mapping[str, float]) -> str:
    return "<br>".join(f"{name} {at:.1f} s" for name, at in sorted(found.items())) or "none"


def _moved_most(metrics: Mapping[str, float]) -> list[str]:
    """Returns those that tell of what went wrong; that tokens were handed out is no news."""
    telling = {
        name: by
        for name, by in metrics.items()
        if _TALKS_OF_TROUBLE.search(name) and "_seconds" not in name and not _is_good_news(name)
    }
    most = sorted(telling, key=lambda name: -abs(telling[name]))[:_MOST_METRICS]
    return [f"{name.removeprefix('token_broker_')} {telling[name]:+.0f}" for name in most]


def _is_good_news(name: str) -> bool:
    return any(each in name for each in ('outcome="rotated"', 'code="OK"', 'outcome="acquired"'))


def summed_up(all_told: Sequence[Told]) -> str:
    """Returns a line with the sums."""
    seen = [each for each in all_told if not each.skipped]
    skipped = [each.fault.name for each in all_told if each.skipped]
    false, missing = (_count(each.false for each in seen), _count(each.missing for each in seen))
    stayed = sum(each.back is None for each in seen)
    words = f"{len(seen)} runs: false alarms {false}, missing {missing}, not well again {stayed}"
    words += f", thrown away because this machine stood still {sum(each.spoilt for each in seen)}"
    return f"\n{words}{', skipped: ' + ', '.join(skipped) if skipped else ''}\n"


def _count(found: Iterable[set[str]]) -> int:
    return sum(map(len, found))


def document_of(told: Told) -> Mapping[str, object]:
    """Returns a row as JSON has it."""
    return {
        "fault": told.fault.name,
        "skipped": told.skipped or None,
        "lights": told.lights,
        "alerts": told.alerts,
        "metrics": told.metrics,
        "status": told.status,
        "explain": told.story,
        "runbook": runbook_of(told.fault),
        "well_after_seconds": told.back,
        "missing": sorted(told.missing),
        "false": sorted(told.false),
        "late_seconds": told.late,
        "spoilt_runs": told.spoilt,
    }
