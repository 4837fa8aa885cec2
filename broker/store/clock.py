"""How far our clock is from PostgreSQL's, and how well that is known.

PostgreSQL looks at its clock somewhere between two looks at ours, and nobody knows where: an answer
may be slow, or this machine may have stood still. So a skew counts only as far as the time between
the two looks cannot explain it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

CLOCK_SKEW: Final = timedelta(seconds=5)
"""NTP keeps clocks within milliseconds; a few seconds are what nobody would look for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What our clocks say at a moment."""

    at: datetime
    monotonic: float
    """Seconds on one that nobody sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """PostgreSQL's clock, read between two looks at ours."""

    theirs: datetime
    before: Look
    after: Look

    @property
    def skew(self) -> timedelta:
        """How far ours is ahead, supposing that theirs was read half way."""
        return self.after.at - self._apart / 2 - self.theirs

    @property
    def uncertainty(self) -> timedelta:
        """By how much that may be wrong: half the time that the answer took.

        More where our clock was set back meanwhile: it then shows less than what has passed.
        """
        passed = timedelta(seconds=self.after.monotonic - self.before.monotonic)
        return max(self._apart / 2, passed - self._apart / 2)

    @property
    def is_skewed(self) -> bool:
        """Whether the clocks are apart for certain, and by more than anybody should bear."""
        return abs(self.skew) > CLOCK_SKEW + self.uncertainty

    @property
    def _apart(self) -> timedelta:
        return self.after.at - self.before.at


def look() -> Look:
    """Looks at our clocks."""
    return Look(at=datetime.now(UTC), monotonic=time.monotonic())
