"""Metrics of what is presented to Pleo, what it answers, and whether that could be kept."""

from __future__ import annotations

from typing import Final, TypeAlias

from broker.domain.answers import CLIENT_SECRET, TOO_LATE
from broker.domain.facts import (
    AttemptAnswered,
    AttemptClaimed,
    AttemptOverdue,
    AttemptSending,
    AttemptSettled,
    SettlementDelayed,
)
from broker.domain.grant import AttemptKind
from broker.domain.token_response import MISCONFIGURATIONS, REFUSALS
from broker.ops.instruments import REFRESH_SECONDS, Instruments, from_zero, word

AttemptFact: TypeAlias = (
    AttemptClaimed
    | AttemptSending
    | AttemptOverdue
    | AttemptAnswered
    | AttemptSettled
    | SettlementDelayed
)

_SERVER_ERRORS: Final = frozenset({"http_500", "http_502", "http_503", "http_504"})
_TRANSPORT_ERRORS: Final = frozenset(
    {
        CLIENT_SECRET,
        "connect_failed",
        "connect_refused",
        "connect_timeout",
        "connection_lost",
        "cut_short",
        "dns",
        "pool_timeout",
        "read_timeout",
        "send_timeout",
        "tls",
        "tls_timeout",
        "unreadable",
    }
)
_ERRORS: Final = (
    REFUSALS
    | MISCONFIGURATIONS
    | _SERVER_ERRORS
    | _TRANSPORT_ERRORS
    | {"http_429", "not_sent", TOO_LATE, ""}
)
"""Errors that are told apart. Pleo may answer with any code, and would then make any series."""

_OTHER: Final = "other"


class AttemptMetrics:
    """Counts a few times a second at most, so nothing is looked up beforehand."""

    def __init__(self, make: Instruments) -> None:
        self._claimed = make.counter(
            "attempts_claimed", "Rights to present that were committed", labels=("kind", "doubt")
        )
        self._sent = make.counter("attempts_sent", "Requests whose body began to be written")
        overdue = make.counter(
            "attempts_overdue",
            "Requests that Pleo had not answered when a whole one should have been over",
            labels=("kind",),
        )
        self._overdue = from_zero(overdue, AttemptKind)
        self._answered = make.counter(
            "attempts_answered",
            "Attempts, by what Pleo answered; no error: tokens",
            labels=("kind", "outcome", "error"),
        )
        self._duration = make.histogram(
            "provider_duration_seconds",
            "From the first byte of the body to Pleo's answer, or to giving up on one",
            bounds=REFRESH_SECONDS,
            labels=("kind", "outcome", "status"),
        )
        self._flags = make.counter("odd_answers", "What was odd about tokens", labels=("flag",))
        self._settled = make.counter(
            "attempts_settled",
            "Attempts whose outcome is committed, or was not allowed to change anything",
            labels=("outcome", "not_allowed"),
        )
        self._delayed = make.counter(
            "settlements_delayed",
            "Times that PostgreSQL did not take an outcome; with a pair, tokens were at stake",
            labels=("holds_pair",),
        )
        for holds_pair in ("false", "true"):
            self._delayed.labels(holds_pair)

    def observe(self, fact: AttemptFact) -> None:
        """Counts."""
        match fact:
            case AttemptClaimed():
                self._claimed.labels(word(fact.kind), word(fact.doubt)).inc()
            case AttemptSending():
                self._sent.inc()
            case AttemptOverdue():
                self._overdue.labels(word(fact.kind)).inc()
            case AttemptAnswered():
                self._answer(fact)
            case AttemptSettled():
                self._settled.labels(word(fact.outcome), word(fact.not_allowed)).inc()
            case SettlementDelayed():
                self._delayed.labels(str(fact.holds_pair).lower()).inc()

    def _answer(self, fact: AttemptAnswered) -> None:
        kind, outcome = word(fact.kind), word(fact.outcome)
        error = fact.error if fact.error in _ERRORS else _OTHER
        self._answered.labels(kind, outcome, error).inc()
        for flag in fact.flags:
            self._flags.labels(flag).inc()
        # What was never sent took no time, and would make Pleo look fast.
        if fact.duration:
            status = "none" if fact.http_status is None else f"{fact.http_status // 100}xx"
            self._duration.labels(kind, outcome, status).observe(fact.duration.total_seconds())
