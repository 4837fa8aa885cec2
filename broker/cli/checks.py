"""What `doctor` finds: one check, how it ended, and what to mend. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """Allowed, and probably not meant."""

    BAD = "bad"
    SKIPPED = "skipped"
    """Could not be looked at, because of something else that is bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line for people."""

    name: str
    outcome: Outcome
    found: str = ""
    mend: str = ""


def ok(name: str, found: str = "") -> Check:
    """Nothing to mend."""
    return Check(name=name, outcome=Outcome.OK, found=found)


def bad(name: str, found: str, *, mend: str) -> Check:
    """Must be mended."""
    return Check(name=name, outcome=Outcome.BAD, found=found, mend=mend)


def warning(name: str, found: str, *, mend: str = "") -> Check:
    """May be as it is."""
    return Check(name=name, outcome=Outcome.WARNING, found=found, mend=mend)


def skipped(*names: str, because: str) -> list[Check]:
    """Could not be looked at."""
    return [Check(name=name, outcome=Outcome.SKIPPED, found=because) for name in names]
