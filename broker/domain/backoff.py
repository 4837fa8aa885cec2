"""When to try again after failures that say nothing about the grant. Persisted with the row."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from broker.domain.grant import FailureKind, FailureRecord

FIRST: Final = timedelta(seconds=1)
"""Long beside a request, short beside a caller's default deadline of 30 s."""

LONGEST: Final = timedelta(seconds=60)
"""An outage ends for everybody within a minute, and a dead Pleo gets one try a minute and grant."""

LONGEST_RETRY_AFTER: Final = timedelta(minutes=10)
"""A `Retry-After` beyond this is not honoured (pleo.md, "Failures")."""


def delay(count: int) -> timedelta:
    """Returns the pause after this many failures in a row (at least 1): doubled, bounded."""
    # The shift is bounded too: 2**count of a grant failing for a year is no timedelta.
    return min(FIRST * (1 << min(count - 1, 10)), LONGEST)


def next_failure(
    last: FailureRecord,
    *,
    kind: FailureKind,
    code: str,
    now: datetime,
    not_before: datetime | None = None,
    retry_after: timedelta | None = None,
) -> FailureRecord:
    """Returns the record after one more failure; the next try is never before `not_before`."""
    count = last.count + 1
    wait = max(delay(count), min(retry_after or timedelta(0), LONGEST_RETRY_AFTER))
    next_try_at = max(now + wait, not_before) if not_before else now + wait
    return FailureRecord(kind=kind, code=code, count=count, next_try_at=next_try_at)
