"""The breaker: keeps the fleet from presenting while Pleo refuses our client or gives no answers.

Grants stay as they are; only planned and asked-for refreshes wait. While it is open one refresh at
a time goes through, whoever's is due: the probe, whose answer closes it or keeps it open. Consents
are not held: their codes live for seconds, and no pair of a customer is at stake.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from broker.domain.answers import Answer, Misconfigured, NotProcessed, Refused, Rotated, Unknown
from broker.domain.backoff import LONGEST_RETRY_AFTER, delay
from broker.domain.clocks import LONGEST_PAUSE
from broker.domain.errors import BrokerError, ProviderRejectedClient, ProviderUnavailable
from broker.domain.evidence import Evidence

MANY_UNKNOWN: Final = 5
"""Grants without an answer within a minute before it opens: fewer may be one bad connection, and
each more may cost a customer."""

STORM_SHARE: Final = 5
"""One in so many of the refreshes sent, as the guard counts: each may cost a customer, and a Pleo
that answers the others will answer a probe."""

RATE_LIMITED: Final = "http_429"
"""The code of an answer that asks us to wait (RFC 6585 §4)."""

SEVERAL_LIMITED: Final = 2
"""Grants told to wait within a minute before all do: a limit on one is that grant's matter."""


class BreakerCause(StrEnum):
    """Why nothing is presented."""

    CLIENT_REJECTED = "CLIENT_REJECTED"
    OUTCOMES_UNKNOWN = "OUTCOMES_UNKNOWN"
    RATE_LIMITED = "RATE_LIMITED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """An open breaker. A closed one is None."""

    cause: BreakerCause
    """By the last answer: what opened it may be over, and another trouble come."""

    code: str
    """The OAuth error or the HTTP status of that answer, for callers."""

    since: datetime
    probe_at: datetime
    """From when the next refresh may go through. Each one that does moves it."""

    probes: int = 0
    """How many went through."""


def admits(breaker: Breaker | None, now: datetime) -> bool:
    """Whether a refresh may be presented: all while closed, the next probe while open.

    A probe that is farther ahead than any pause lasts is due: see `clocks.is_pausing`.
    """
    return breaker is None or not now < breaker.probe_at <= now + LONGEST_PAUSE


def is_from_before(claimed_at: datetime, breaker: Breaker, now: datetime) -> bool:
    """Whether an attempt was claimed before the breaker opened.

    Where it opens only in the future, PostgreSQL's clock was set back since, and nobody knows: it
    counts as later, or nothing would close the breaker before that time has come again.
    """
    return claimed_at < breaker.since <= now


def probing(breaker: Breaker, *, now: datetime, span: timedelta) -> Breaker:
    """Returns the breaker with a probe on its way, which is given up after `span`."""
    return replace(breaker, probe_at=now + span, probes=breaker.probes + 1)


def is_worth_weighing(answer: Answer) -> bool:
    """Whether an answer may open a closed breaker."""
    match answer:
        case Misconfigured() | Unknown():
            return True
        case NotProcessed(code=code):
            return code == RATE_LIMITED
        case _:
            return False


def after_answer(
    breaker: Breaker | None, answer: Answer, evidence: Evidence, *, claimed_at: datetime
) -> Breaker | None:
    """Returns the breaker after a refresh was answered; `evidence` counts this answer too.

    An answer to what was claimed before the breaker opened says nothing about now.
    """
    now = evidence.at
    if breaker is None:
        return _opened(answer, evidence)
    if is_from_before(claimed_at, breaker, now):
        return breaker
    if isinstance(answer, Rotated | Refused):
        return None  # Pleo knows our client and answers
    cause, code = _cause_of(answer) or (breaker.cause, breaker.code)
    return replace(breaker, cause=cause, code=code, probe_at=now + _pause(answer, breaker.probes))


def _opened(answer: Answer, evidence: Evidence) -> Breaker | None:
    told = _cause_of(answer)
    if told is None or not _is_enough(told[0], evidence):
        return None
    (cause, code), at = told, evidence.at
    return Breaker(cause=cause, code=code, since=at, probe_at=at + _pause(answer, 0))


def _cause_of(answer: Answer) -> tuple[BreakerCause, str] | None:
    """Returns what keeps or makes it open, and the code for callers."""
    match answer:
        case Misconfigured(error=code):
            return BreakerCause.CLIENT_REJECTED, code
        case Unknown(code=code):
            return BreakerCause.OUTCOMES_UNKNOWN, code
        case NotProcessed(code=code) if code == RATE_LIMITED:
            return BreakerCause.RATE_LIMITED, code
        case _:
            return None  # a probe that was not sent says nothing new


def _is_enough(cause: BreakerCause, evidence: Evidence) -> bool:
    match cause:
        case BreakerCause.CLIENT_REJECTED:
            return True
        case BreakerCause.OUTCOMES_UNKNOWN:
            return _is_storm(evidence)
        case BreakerCause.RATE_LIMITED:
            return _is_limit(evidence)
        case _:
            assert_never(cause)


def _is_storm(evidence: Evidence) -> bool:
    is_large = evidence.unknown_grants * STORM_SHARE >= evidence.sent
    return is_large and evidence.unknown_grants >= MANY_UNKNOWN


def _is_limit(evidence: Evidence) -> bool:
    return evidence.limited_grants >= SEVERAL_LIMITED


def _pause(answer: Answer, probes: int) -> timedelta:
    asked = answer.retry_after if isinstance(answer, NotProcessed) else None
    return max(delay(probes + 1), min(asked or timedelta(0), LONGEST_RETRY_AFTER))


def error_of_breaker(breaker: Breaker, *, tenant: str, now: datetime) -> BrokerError:
    """Returns what a caller is told whose refresh has to wait for the breaker."""
    if breaker.cause is BreakerCause.CLIENT_REJECTED:
        return ProviderRejectedClient(tenant=tenant, error=breaker.code)
    return ProviderUnavailable(
        "Pleo gives no answers, or asks all of us to wait: nothing is sent for now",
        tenant=tenant,
        retry_after=max(breaker.probe_at - now, delay(1)),
        metadata={"code": breaker.code},
    )
