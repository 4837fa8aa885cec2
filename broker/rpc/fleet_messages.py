"""How the fleet is, as a message of the API. What was not found out is an absent field."""

from __future__ import annotations

from typing import Final

from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.fleet_report import (
    DependencyReport,
    FleetReport,
    FleetTally,
    KeyUse,
    Overdue,
    ReplicaSign,
)
from broker.domain.guard import Guard, GuardState
from broker.rpc.messages import duration, timestamp
from broker.v1.operations_service_pb2 import GetFleetStatusResponse

_Message = GetFleetStatusResponse

CAUSES: Final = {
    BreakerCause.CLIENT_REJECTED: "Pleo refuses our client",
    BreakerCause.OUTCOMES_UNKNOWN: "Pleo leaves too many requests without an answer",
    BreakerCause.RATE_LIMITED: "Pleo asks us to wait",
}
"""In plain words."""


def fleet_message(report: FleetReport) -> GetFleetStatusResponse:
    """Returns the answer to GetFleetStatus."""
    message = _Message(
        home=report.home,
        environment=report.environment,
        replica=report.replica,
        dependencies=[_dependency(each) for each in report.dependencies],
        breaker=_breaker(report.breaker),
        keys=[_key(each) for each in report.keys],
        escrow_count=report.escrow_count,
    )
    if report.tally is not None:
        message.MergeFrom(_of_postgres(report.tally, report.guard))
    return message


def _of_postgres(tally: FleetTally, guard: Guard) -> GetFleetStatusResponse:
    counts = tally.counts
    return _Message(
        grant_counts=_Message.GrantCounts(
            active=counts.active,
            held=counts.held,
            reauth_required=counts.reauth_required,
            revoked=counts.revoked,
            in_doubt=counts.in_doubt,
        ),
        guard=_guard(guard, recent_refusals=tally.recent_refusals),
        overdue_renewals=_overdue(tally.overdue),
        replicas=[_replica(each) for each in tally.replicas],
    )


def _dependency(report: DependencyReport) -> _Message.Dependency:
    return _Message.Dependency(
        name=report.name,
        healthy=report.is_healthy,
        check_time=timestamp(report.checked_at) if report.checked_at else None,
        last_error=report.last_error,
    )


def _breaker(breaker: Breaker | None) -> _Message.Breaker:
    if breaker is None:
        return _Message.Breaker(state=_Message.Breaker.STATE_CLOSED)
    return _Message.Breaker(
        state=_Message.Breaker.STATE_OPEN,
        cause=f"{CAUSES[breaker.cause]} ({breaker.code})",
        since_time=timestamp(breaker.since),
        next_probe_time=timestamp(breaker.probe_at),
    )


def _guard(guard: Guard, *, recent_refusals: int) -> _Message.Guard:
    # What was decided is carried out in seconds: to whoever looks, nothing is held any more.
    if guard.state is not GuardState.HOLDING:
        return _Message.Guard(state=_Message.Guard.STATE_WATCHING, recent_refusals=recent_refusals)
    return _Message.Guard(
        state=_Message.Guard.STATE_HOLDING,
        recent_refusals=recent_refusals,
        since_time=timestamp(guard.since) if guard.since else None,
        end_time=timestamp(guard.until) if guard.until else None,
    )


def _overdue(overdue: Overdue) -> _Message.OverdueRenewals:
    longest = None if overdue.longest is None else duration(overdue.longest)
    return _Message.OverdueRenewals(count=overdue.count, longest_delay=longest)


def _replica(sign: ReplicaSign) -> _Message.Replica:
    return _Message.Replica(
        name=sign.name,
        version=sign.build,
        start_time=timestamp(sign.started_at),
        heartbeat_time=timestamp(sign.seen_at),
    )


def _key(use: KeyUse) -> _Message.KeyUse:
    return _Message.KeyUse(
        key_id=use.key_id,
        primary=use.is_primary,
        available=use.is_available,
        row_count=use.row_count,
    )
