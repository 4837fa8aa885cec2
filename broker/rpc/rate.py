"""How often a caller may call: one token bucket each, kept as the time at which it is full again.

Decides from times that it is given (seconds that never go back), and keeps none of its own.
"""

from __future__ import annotations

from typing import Final

_MOST_CALLERS: Final = 10_000
"""Kept apart. A policy has tens; whoever has more has service accounts that come and go, and a
bucket that is full again says no more than none."""

_ROUNDING: Final = 1e-6
"""Seconds: what floating-point numbers add to a clock that has run for years."""


class RateLimit:
    """Admits `rate` calls a second from each caller, and `burst` at once after a rest."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self._a_call = 1 / rate
        self._a_burst = (burst - 1) / rate
        self._full_at: dict[str, float] = {}

    def wait(self, caller: str, *, now: float) -> float:
        """Takes one call; returns 0, or after how many seconds there is room, with none taken."""
        full_at = self._full_at.get(caller)
        if full_at is None:
            self._make_room(now)
        # On the way of every call: a built-in `max` costs as much as the rest.
        spent = now if full_at is None or full_at < now else full_at
        wait = spent - self._a_burst - now
        if wait > _ROUNDING:
            return wait
        self._full_at[caller] = spent + self._a_call
        return 0.0

    def _make_room(self, now: float) -> None:
        """Lets go of full buckets; of all, where so many callers are busy at once."""
        if len(self._full_at) < _MOST_CALLERS:
            return
        busy = {caller: at for caller, at in self._full_at.items() if at > now}
        self._full_at = busy if len(busy) < _MOST_CALLERS else {}
