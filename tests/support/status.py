"""Views of the status page: a fleet that is well, and one that is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final, TypedDict, Unpack

from broker.domain.breaker import Breaker
from broker.domain.fleet_report import AttemptHour, FleetTally
from broker.domain.guard import Guard
from broker.ops.health import CheckState, HealthSnapshot, Need
from broker.ops.status_view import Aged, StatusView
from support.grants import THE_NOW
from support.reports import THE_HOUR, THE_TALLY

A_MOMENT: Final = timedelta(seconds=2)

WELL: Final = HealthSnapshot(
    is_ready=True,
    is_draining=False,
    checks=(
        CheckState(
            name="postgres",
            needed_for=frozenset(Need),
            is_good=True,
            age=A_MOMENT,
            last_error="STORE_UNAVAILABLE",
            last_error_age=timedelta(hours=2),
        ),
        CheckState(
            name="schema",
            needed_for=frozenset(Need),
            is_good=True,
            age=A_MOMENT,
            details={"version": 2},
        ),
        CheckState(name="redis", needed_for=frozenset(), is_good=True, age=A_MOMENT),
    ),
)

WITHOUT_REDIS: Final = replace(
    WELL,
    checks=(
        *WELL.checks[:2],
        CheckState(
            name="redis",
            needed_for=frozenset(),
            age=A_MOMENT,
            last_error="REDIS_UNREACHABLE",
            last_error_age=A_MOMENT,
        ),
    ),
)

_VIEW: Final = StatusView(
    home="production-eu",
    environment="production",
    version="0.9.1",
    replica="broker-1",
    now=THE_NOW,
    health=WELL,
    breaker=None,
    guard=Guard(),
    tally=Aged(found=THE_TALLY, age=A_MOMENT),
    hour=Aged(found=THE_HOUR, age=A_MOMENT),
)


class ViewChanges(TypedDict, total=False):
    """What may be different about a view."""

    home: str
    health: HealthSnapshot
    breaker: Breaker | None
    guard: Guard
    tally: Aged[FleetTally] | None
    hour: Aged[AttemptHour] | None


def some_view(**changes: Unpack[ViewChanges]) -> StatusView:
    """Returns the view of a fleet that is well."""
    return replace(_VIEW, **changes)
