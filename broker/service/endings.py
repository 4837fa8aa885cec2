"""What an answer from Pleo is: its name in the history, and which write, whatever row is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias, assert_never

from broker.domain.answers import (
    TOO_LATE,
    Answer,
    Misconfigured,
    NotProcessed,
    Refused,
    Rotated,
    Unknown,
)
from broker.domain.backoff import next_failure
from broker.domain.decision import Changed, Decision
from broker.domain.grant import Attempt, FailureKind, FailureRecord, Grant
from broker.domain.history import AttemptOutcome
from broker.domain.recall_writes import write_back
from broker.domain.refresh_writes import Issue, call_unknown, let_go, refuse, store_rotated
from broker.service.rows import Reading

NO_ACCESS_TOKEN: Final = "no_access_token"  # noqa: S105 - names an answer
"""The code of an answer with a refresh token alone."""

Failure: TypeAlias = NotProcessed | Unknown | Misconfigured


def outcome_of(answer: Answer) -> AttemptOutcome:
    """Returns the outcome that the history calls an answer."""
    match answer:
        case Rotated():
            return AttemptOutcome.ROTATED
        case Refused():
            return AttemptOutcome.REFUSED
        case NotProcessed():
            return AttemptOutcome.NOT_PROCESSED
        case Unknown():
            return AttemptOutcome.UNKNOWN
        case Misconfigured():
            return AttemptOutcome.MISCONFIGURED
        case _:
            assert_never(answer)


def error_of(answer: Answer) -> str:
    """Returns an answer's error code, `""` for tokens."""
    match answer:
        case Rotated():
            return ""
        case Refused(error=error) | Misconfigured(error=error):
            return error
        case NotProcessed(code=code) | Unknown(code=code):
            return code
        case _:
            assert_never(answer)


def failing(mine: Attempt, answer: Failure) -> Callable[[Reading], Decision]:
    """Returns the write of an attempt that brought neither tokens nor a refusal of the grant."""

    def decide(reading: Reading) -> Decision:
        grant = reading.grant
        if isinstance(answer, Unknown):
            return call_unknown(grant, mine, failures=_failure(reading, mine, answer))
        return let_go(grant, mine, failures=_failure(reading, mine, answer))

    return decide


def storing(mine: Attempt, issued: Issue, *, claimed: Grant) -> Callable[[Reading], Decision]:
    """Returns the write of an attempt that brought tokens; `claimed` is the row that it claimed."""

    def decide(reading: Reading) -> Decision:
        decision = store_rotated(reading.grant, mine, issued, now=reading.now)
        if reading.grant.generation < mine.base_generation:
            # PostgreSQL has lost what was presented too.
            stored = store_rotated(claimed, mine, issued, now=reading.now)
            if isinstance(stored, Changed):
                decision = write_back(stored.after, reading.grant, now=None)
        if issued.access_token is not None or not isinstance(decision, Changed):
            return decision
        return Changed(after=replace(decision.after, failures=_useless(reading)))

    return decide


def _useless(reading: Reading) -> FailureRecord:
    """Returns the record after a pair that is of no use to callers.

    The first is refreshed at once. Without a pause after the next, callers would rotate the grant
    as fast as Pleo answers.
    """
    last, kind = reading.grant.failures, FailureKind.PROVIDER_UNAVAILABLE
    failure = next_failure(last, kind=kind, code=NO_ACCESS_TOKEN, now=reading.latest_now())
    return failure if last.code == NO_ACCESS_TOKEN else replace(failure, next_try_at=None)


def refusing(
    mine: Attempt, error: str, *, is_holding: Callable[[], bool]
) -> Callable[[Reading], Decision]:
    """Returns the write of an attempt to which Pleo said that the grant is dead.

    `is_holding`: whether the fleet guard doubts it, asked when the row is written.
    """

    def decide(reading: Reading) -> Decision:
        is_held, now = is_holding(), reading.now
        return refuse(reading.grant, mine, provider_error=error, is_held=is_held, now=now)

    return decide


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
