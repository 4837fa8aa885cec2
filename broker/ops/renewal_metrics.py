"""Metrics of planned work: what was renewed, and how late it was taken up."""

from __future__ import annotations

from broker.domain.facts import RenewalEnded
from broker.ops.instruments import REFRESH_SECONDS, Instruments


class RenewalMetrics:
    """Counts what ends; what is still overdue PostgreSQL alone knows."""

    def __init__(self, make: Instruments) -> None:
        self._ended = make.counter(
            "renewals", "Renewals as planned work; no reason: done", labels=("reason",)
        )
        self._ended.labels("")
        self._delay = make.histogram(
            "renewal_delay_seconds",
            "From when a renewal was due to when a replica took it up",
            bounds=REFRESH_SECONDS,
        )

    def observe(self, fact: RenewalEnded) -> None:
        """Counts."""
        self._ended.labels(fact.reason).inc()
        self._delay.observe(fact.overdue_for.total_seconds())
