"""Times on a row that PostgreSQL's clock cannot mean: it was set back since, or ran ahead before.

Law 1 holds whichever way that clock jumps. Forwards, a deadline passes early; then the quarantine
protects, which the claimer measures on a clock of its own. Backwards, it passes late, and that is
the safe side: an attempt with a deadline too far ahead to be right may have begun a moment ago, and
its owner be on the wire. So it is never taken for over because it cannot be right. It is over once
somebody has watched it, on a clock that does not jump, for as long as any attempt may last: whoever
put it on the row began before it was first seen.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.domain.backoff import LONGEST_RETRY_AFTER
from broker.domain.grant import Attempt, FailureRecord
from broker.domain.times import LONGEST_SPAN

LONGEST_PAUSE: Final = LONGEST_RETRY_AFTER + LONGEST_SPAN
"""Till the next try, from whenever it is read: pauses are reckoned from a time that may be late by
as much as a settlement takes."""

_NONE: Final = timedelta(0)


def is_out_of_reach(attempt: Attempt, now: datetime) -> bool:
    """Whether the deadline is farther ahead than that of any attempt."""
    return attempt.deadline - now > LONGEST_SPAN


def as_watched(attempt: Attempt, now: datetime, *, watched: timedelta) -> Attempt:
    """Returns an attempt that was out of reach, with the deadline that a watcher knows it by.

    `watched`: since it was first seen, on a clock that does not jump. A write that keeps the
    attempt puts that deadline on the row, where it is right for everybody else as well.
    """
    over_at = now + max(LONGEST_SPAN - watched, _NONE)
    # Sooner than that where the clock has been put right meanwhile.
    return replace(attempt, deadline=min(attempt.deadline, over_at))


def is_pausing(failures: FailureRecord, now: datetime) -> bool:
    """Whether the next try is still ahead.

    One that is farther ahead than any pause lasts is due: what a pause protects is Pleo's patience,
    and not the grant.
    """
    next_try_at = failures.next_try_at
    return next_try_at is not None and now < next_try_at <= now + LONGEST_PAUSE
