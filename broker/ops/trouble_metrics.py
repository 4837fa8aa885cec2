"""Metrics of what somebody may have to look at: customers who must consent again, and faults."""

from __future__ import annotations

from typing import TypeAlias

from broker.domain.facts import (
    DefectMet,
    GrantRevoked,
    HistoryLost,
    LoopFailed,
    ReauthBecameRequired,
    RejectionReported,
)
from broker.domain.grant import ReauthCause
from broker.domain.rejection import Verdict
from broker.ops.instruments import Instruments, from_zero, word

TroubleFact: TypeAlias = (
    ReauthBecameRequired | GrantRevoked | RejectionReported | HistoryLost | LoopFailed | DefectMet
)


class TroubleMetrics:
    """Counts; what lies behind a number is in the log."""

    def __init__(self, make: Instruments) -> None:
        reauth = make.counter(
            "reauth_required", "Grants whose customer must consent again", labels=("cause",)
        )
        self._reauth = from_zero(reauth, ReauthCause)
        self._revoked = make.counter("grants_revoked", "Grants that a caller has revoked")
        rejections = make.counter(
            "rejections_reported",
            "Reports that Pleo's API rejected a token, by what was made of them",
            labels=("verdict",),
        )
        self._rejections = from_zero(rejections, Verdict)
        self._history = make.counter(
            "history_lost", "Settlements committed without their line in the history"
        )
        self._loops = make.counter(
            "loop_failures", "Errors that a background loop met and got over", labels=("loop",)
        )
        self._defects = make.counter("defects", "Errors that no rule foresaw")

    def observe(self, fact: TroubleFact) -> None:
        """Counts."""
        match fact:
            case ReauthBecameRequired():
                self._reauth.labels(word(fact.cause)).inc()
            case GrantRevoked():
                self._revoked.inc()
            case RejectionReported():
                self._rejections.labels(fact.verdict).inc()
            case HistoryLost():
                self._history.inc()
            case LoopFailed():
                self._loops.labels(fact.loop).inc()
            case DefectMet():
                self._defects.inc()
