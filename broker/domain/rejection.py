"""Reports that Pleo's API rejected an access token: when one leads to a rotation.

A thousand reports about one generation are one rotation. A generation once believed to be rejected
is never served again. A caller with a broken client must not be able to kill everybody's token
time after time, so the interval between such rotations doubles while reports go on.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from broker.domain.grant import Attempt, AttemptPhase, Grant, RejectionRecord

LONGEST_INTERVAL: Final = timedelta(minutes=15)
"""As long as a token was once documented to live: by then it is renewed anyway."""


class Verdict(Enum):
    """What a report leads to."""

    MOVED_ON = auto()
    """A newer token is there: it is the answer."""

    TOO_SOON = auto()
    """The interval since the last such rotation has not passed: the same token again."""

    UNDER_WAY = auto()
    """An attempt may be on the wire, and may have killed the token already: a report starts
    nothing, and what comes of the attempt is the answer."""

    IN_DOUBT = auto()
    """An attempt ended without an answer, and its deadline has not passed: a report starts nothing,
    and there is nothing to wait for."""

    UNHEARD_OF = auto()
    """A generation that we never issued: the database may have been rolled back. No rotation."""

    BELIEVED = auto()
    """Rotate, unless Pleo says that the token lives."""


def judge(grant: Grant, rejected_generation: int, now: datetime) -> Verdict:
    """Decides what a report about this generation leads to.

    Doubt does not silence it: where a refresh that was not due had no answer, the token may have
    died long before its renewal, and nobody but who reports it would have it presented once more.
    """
    if rejected_generation > grant.generation:
        return Verdict.UNHEARD_OF
    if rejected_generation < grant.generation:
        return Verdict.MOVED_ON
    if grant.rejection.generation >= rejected_generation:
        return Verdict.BELIEVED
    if grant.attempt is not None and grant.attempt.is_live(now):
        return _during(grant.attempt)
    last = grant.rejection
    is_soon = last.rotated_at is not None and now < last.rotated_at + last.interval
    return Verdict.TOO_SOON if is_soon else Verdict.BELIEVED


def _during(attempt: Attempt) -> Verdict:
    # As for callers without a living token: nobody waits for an owner who has given up.
    is_given_up = attempt.phase is AttemptPhase.UNKNOWN
    return Verdict.IN_DOUBT if is_given_up else Verdict.UNDER_WAY


def believe(grant: Grant, *, shortest: timedelta, now: datetime) -> Grant:
    """Returns the grant with the report of its present generation on record.

    The interval doubles when the last one has passed less than once more, else starts anew. A
    second report of the same generation changes nothing: one rotation counts once.
    """
    last = grant.rejection
    if last.generation >= grant.generation:
        return grant
    goes_on = last.rotated_at is not None and now < last.rotated_at + 2 * last.interval
    interval = min(last.interval * 2, LONGEST_INTERVAL) if goes_on else shortest
    record = RejectionRecord(generation=grant.generation, rotated_at=now, interval=interval)
    return replace(grant, rejection=record)
