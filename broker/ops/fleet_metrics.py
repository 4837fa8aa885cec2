"""Metrics of what the whole fleet stands in: the breaker and the guard, as this replica heard."""

from __future__ import annotations

from typing import TypeAlias

from broker.domain.breaker import BreakerCause
from broker.domain.facts import BreakerMoved, EvidenceUnread, GuardMoved, PastChanged
from broker.domain.guard import GuardState
from broker.ops.instruments import Instruments

FleetFact: TypeAlias = BreakerMoved | GuardMoved | PastChanged | EvidenceUnread


class FleetMetrics:
    """Shows how both stand, each state from the start."""

    def __init__(self, make: Instruments) -> None:
        self._breaker = make.gauge(
            "breaker_open", "Whether refreshes wait, and why", labels=("cause",)
        )
        self._guard = make.gauge("guard_state", "Which state the guard is in", labels=("state",))
        self._unread = make.counter(
            "evidence_unread", "Answers not weighed for guard and breaker, for want of PostgreSQL"
        )
        self._pasts = make.counter(
            "database_replaced", "Failovers and restores after which commits may have been lost"
        )
        self._show_breaker("")
        self._show_guard(GuardState.WATCHING)

    def observe(self, fact: FleetFact) -> None:
        """Takes note."""
        match fact:
            case BreakerMoved():
                self._show_breaker(fact.cause)
            case GuardMoved():
                self._show_guard(fact.state)
            case PastChanged():
                self._pasts.inc()
            case EvidenceUnread():
                self._unread.inc()

    def _show_breaker(self, cause: str) -> None:
        for each in BreakerCause:
            self._breaker.labels(each.value.lower()).set(each.value == cause)

    def _show_guard(self, state: GuardState) -> None:
        for each in GuardState:
            self._guard.labels(each.value.lower()).set(each is state)
