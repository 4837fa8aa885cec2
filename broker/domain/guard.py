"""The fleet guard: so many refusals at once are more likely an incident than so many goodbyes.

WATCHING ── many refused ──► HOLDING ──┬── confirmed, or nobody decided ──► CONFIRMING ──┐
    ▲                                  └── discarded, or the canary rotated ► DISCARDING ┤
    └───────────────────────────────── nothing left to release ───────────────────────────┘

While it holds, a refused grant is HELD instead of REAUTH_REQUIRED, and so are those that were
refused shortly before. It never destroys: what is given up stays sealed for a while and can be
taken back. The grants' own writes are in `guard_writes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from broker.domain.evidence import GUARD_WINDOW, Evidence

FEWEST_GRANTS: Final = 5
"""Below that, customers who happen to leave in the same minutes would hold up everybody."""

SHARE: Final = 5
"""One in so many of the answered refreshes: a large fleet loses customers every day, and an
incident spares few."""

BROKER: Final = "broker"
"""Who decided where no engineer did."""


class GuardState(StrEnum):
    """How the guard stands."""

    WATCHING = "WATCHING"
    HOLDING = "HOLDING"
    CONFIRMING = "CONFIRMING"
    """Held grants are given up, each as soon as it may be."""

    DISCARDING = "DISCARDING"
    """Held grants, and those given up before that are still sealed, become ACTIVE again."""


class Release(StrEnum):
    """What to make of the refusals."""

    CONFIRM = "CONFIRM"
    DISCARD = "DISCARD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """The one held grant that is presented again to see whether Pleo still refuses."""

    tenant: str
    generation: int
    """That it is presented at."""

    refused_at: datetime
    """Since when it was held as it was chosen: refused again, it is held since later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The guard of the fleet."""

    state: GuardState = GuardState.WATCHING
    since: datetime | None = None
    """When it began to hold."""

    until: datetime | None = None
    """When the refusals count unless somebody decides before."""

    counted_from: datetime | None = None
    """When it was last decided on: refusals before that were dealt with."""

    canary: Canary | None = None
    decided_by: str = ""
    reason: str = ""


def trips(evidence: Evidence) -> bool:
    """Whether that many refusals are more than customers who leave."""
    refused = evidence.refused_grants
    return refused >= FEWEST_GRANTS and refused * SHARE >= evidence.answered


def hold(guard: Guard, *, now: datetime, hold_for: timedelta) -> Guard:
    """Returns the guard holding; one that holds already goes on as it is."""
    if guard.state is GuardState.HOLDING:
        return guard
    return Guard(
        state=GuardState.HOLDING,
        since=now,
        until=now + hold_for,
        counted_from=guard.counted_from,
    )


def leads_to(guard: Guard, release: Release) -> GuardState:
    """Returns the guard's state after a decision: where nothing is held nothing is confirmed."""
    if release is Release.DISCARD:
        return GuardState.DISCARDING
    return GuardState.CONFIRMING if guard.state is GuardState.HOLDING else guard.state


def decide(guard: Guard, release: Release, *, now: datetime, by: str, reason: str) -> Guard:
    """Returns the guard after a decision.

    To confirm ends a hold; where nothing is held there is nothing to confirm. To discard ends a
    hold too, and takes back what was given up before.
    """
    if release is Release.CONFIRM and guard.state is not GuardState.HOLDING:
        return guard
    return replace(
        guard,
        state=leads_to(guard, release),
        counted_from=now,
        decided_by=by,
        reason=reason,
    )


def decide_when_due(guard: Guard, *, now: datetime) -> Guard:
    """Returns the guard confirmed where nobody has decided in time."""
    if guard.state is not GuardState.HOLDING or guard.until is None or now < guard.until:
        return guard
    reason = "nobody decided in time"
    return decide(guard, Release.CONFIRM, now=now, by=BROKER, reason=reason)


def finish(guard: Guard) -> Guard:
    """Returns the guard watching again, once nothing is left to release."""
    return Guard(counted_from=guard.counted_from)


def is_recent(refused_at: datetime, guard: Guard) -> bool:
    """Whether a refusal belongs to the hold although it was believed: it came shortly before."""
    if guard.state is not GuardState.HOLDING or guard.since is None:
        return False
    earliest = guard.since - GUARD_WINDOW
    if guard.counted_from is not None:
        earliest = max(earliest, guard.counted_from)
    return refused_at >= earliest
