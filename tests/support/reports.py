"""How a fleet may be: reports in which everything has happened, and what may be different."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final, TypedDict, Unpack

from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.fleet_report import (
    AttemptHour,
    AttemptLine,
    DependencyReport,
    FleetReport,
    FleetTally,
    GrantCounts,
    KeyUse,
    MinuteCount,
    Overdue,
    ReplicaSign,
)
from broker.domain.guard import Guard, GuardState
from support.grants import THE_NOW

THE_TALLY: Final = FleetTally(
    at=THE_NOW,
    counts=GrantCounts(active=1204, held=7, reauth_required=31, revoked=12, in_doubt=3),
    recent_refusals=9,
    overdue=Overdue(count=4, longest=timedelta(minutes=6, seconds=30)),
    replicas=(
        ReplicaSign(
            name="broker-1",
            build="0.9.0",
            started_at=THE_NOW - timedelta(days=2),
            seen_at=THE_NOW - timedelta(seconds=4),
        ),
        ReplicaSign(
            name="broker-2",
            build="0.9.1",
            started_at=THE_NOW - timedelta(hours=1),
            seen_at=THE_NOW - timedelta(seconds=9),
        ),
    ),
)

HOLDING: Final = Guard(
    state=GuardState.HOLDING,
    since=THE_NOW - timedelta(minutes=10),
    until=THE_NOW + timedelta(hours=3, minutes=50),
    decided_by="uri:spiffe://example.org/anna",
    reason="OPS-17 of acme",
)

OPEN: Final = Breaker(
    cause=BreakerCause.CLIENT_REJECTED,
    code="invalid_client",
    since=THE_NOW - timedelta(minutes=5),
    probe_at=THE_NOW + timedelta(seconds=20),
    probes=3,
)

_REPORT: Final = FleetReport(
    home="production-eu",
    environment="production",
    replica="broker-1",
    dependencies=(
        DependencyReport(name="postgres", is_healthy=True, checked_at=THE_NOW, last_error=""),
        DependencyReport(
            name="redis", is_healthy=False, checked_at=THE_NOW, last_error="REDIS_UNREACHABLE"
        ),
        DependencyReport(name="pleo", is_healthy=True, checked_at=None, last_error=""),
    ),
    breaker=OPEN,
    guard=HOLDING,
    tally=THE_TALLY,
    keys=(
        KeyUse(key_id=11, is_primary=True, is_available=True, row_count=1254),
        KeyUse(key_id=12, is_primary=False, is_available=False, row_count=2),
    ),
    escrow_count=2,
)

THE_HOUR: Final = AttemptHour(
    at=THE_NOW,
    minutes=(
        MinuteCount(minutes_ago=0, outcome="ROTATED", count=40),
        MinuteCount(minutes_ago=0, outcome="UNKNOWN", count=2),
        MinuteCount(minutes_ago=17, outcome="REFUSED", count=5),
        MinuteCount(minutes_ago=59, outcome="ROTATED", count=22),
    ),
    latest=(
        AttemptLine(
            ended_at=THE_NOW - timedelta(seconds=3),
            kind="REFRESH",
            replica="broker-1",
            outcome="UNKNOWN",
            http_status=None,
            error="read_timeout",
            duration=timedelta(seconds=10),
        ),
        AttemptLine(
            ended_at=THE_NOW - timedelta(seconds=8),
            kind="EXCHANGE",
            replica="broker-2",
            outcome="ROTATED",
            http_status=200,
            error="",
            duration=timedelta(milliseconds=180),
        ),
    ),
)


class ReportChanges(TypedDict, total=False):
    """What may be different about a report."""

    dependencies: tuple[DependencyReport, ...]
    breaker: Breaker | None
    guard: Guard
    tally: FleetTally | None
    keys: tuple[KeyUse, ...]
    escrow_count: int | None


def some_report(**changes: Unpack[ReportChanges]) -> FleetReport:
    """Returns the report of a fleet in trouble."""
    return replace(_REPORT, **changes)
