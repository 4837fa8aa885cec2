"""Which write an answer from Pleo is, whatever row the settlement finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, assert_never

from broker.domain.answers import Misconfigured, NotProcessed, Unknown
from broker.domain.backoff import next_failure
from broker.domain.decision import Decision
from broker.domain.grant import Attempt, FailureKind, FailureRecord
from broker.domain.refresh_writes import Issue, call_unknown, let_go, refuse, store_rotated
from broker.service.rows import Reading

TOO_LATE: Final = "too_late"
"""The provider's code for an attempt that was not sent because its own time was over."""

Failure: TypeAlias = NotProcessed | Unknown | Misconfigured


def failing(mine: Attempt, answer: Failure) -> Callable[[Reading], Decision]:
    """Returns the write of an attempt that brought neither tokens nor a refusal of the grant."""

    def decide(reading: Reading) -> Decision:
        grant = reading.grant
        if isinstance(answer, Unknown):
            return call_unknown(grant, mine, failures=_failure(reading, mine, answer))
        return let_go(grant, mine, failures=_failure(reading, mine, answer))

    return decide


def storing(mine: Attempt, issued: Issue) -> Callable[[Reading], Decision]:
    """Returns the write of an attempt that brought tokens."""
    return lambda reading: store_rotated(reading.grant, mine, issued, now=reading.now)


def refusing(mine: Attempt, error: str) -> Callable[[Reading], Decision]:
    """Returns the write of an attempt to which Pleo said that the grant is dead."""
    return lambda reading: refuse(reading.grant, mine, provider_error=error, now=reading.now)


def _failure(reading: Reading, mine: Attempt, answer: Failure) -> FailureRecord:
    last, now = reading.grant.failures, reading.latest_now()
    match answer:
        case NotProcessed(code=code) if code == TOO_LATE:
            return last
        case NotProcessed(code=code, retry_after=retry_after):
            kind = FailureKind.PROVIDER_UNAVAILABLE
            return next_failure(last, kind=kind, code=code, now=now, retry_after=retry_after)
        case Unknown(code=code):
            kind = FailureKind.OUTCOME_UNKNOWN
            return next_failure(last, kind=kind, code=code, now=now, not_before=mine.deadline)
        case Misconfigured(error=error):
            kind = FailureKind.CLIENT_REJECTED
            return next_failure(last, kind=kind, code=error, now=now)
        case _:
            assert_never(answer)
