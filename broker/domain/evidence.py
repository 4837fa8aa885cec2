"""What the history of attempts says about the fleet: the counts that guard and breaker weigh."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

GUARD_WINDOW: Final = timedelta(minutes=5)
"""In which refusals are counted together. Longer than an incident takes to show, and shorter than
it takes for customers who leave one by one to look like one."""

BREAKER_WINDOW: Final = timedelta(minutes=1)
"""In which lost answers and limits are counted together: what Pleo does now, not what it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Counts of settled refreshes; exchanges and imports are not counted."""

    at: datetime
    """PostgreSQL's time when they were counted."""

    refused_grants: int
    """Distinct grants refused within `GUARD_WINDOW`, and since the guard was last decided on.

    Without those that were in doubt: a replica that dies with many refreshes on the wire leaves as
    many grants to be refused, and that is no incident at Pleo.
    """

    answered: int
    """Refreshes within the same time to which Pleo gave a definite answer: rotated or refused."""

    unknown_grants: int
    """Distinct grants with a lost answer within `BREAKER_WINDOW`."""

    limited_grants: int
    """Distinct grants to which Pleo answered 429 within `BREAKER_WINDOW`."""

    sent: int
    """All refreshes that were sent within `BREAKER_WINDOW`."""
