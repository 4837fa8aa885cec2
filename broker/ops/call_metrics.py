"""Metrics of calls: how many, how they ended, how long they took."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from broker.ops.instruments import CALL_SECONDS, Instruments
from broker.ops.tallies import Spread, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Where calls that end alike are counted."""

    calls: Tally
    seconds: Spread

    def count(self, seconds: float) -> None:
        """Counts one that took so long."""
        self.calls.count += 1
        self.seconds.add(seconds)


class CallMetrics:
    """Stands on the way of every call: one look-up and two increments.

    Methods, codes and reasons are those of the API, so there are not many ways to end.
    """

    def __init__(self, make: Instruments) -> None:
        self._calls = make.tallies(
            "calls",
            "Calls, by gRPC status and the reason of ours, if it was one",
            labels=("method", "code", "reason"),
        )
        self._duration = make.spreads(
            "call_duration_seconds",
            "How long calls took; streams as long as they were watched",
            bounds=CALL_SECONDS,
            labels=("method",),
        )
        self._known: dict[tuple[str, str, str], Ended] = {}

    def call_ended(self, *, method: str, code: str, reason: str, duration: timedelta) -> None:
        """Counts. As `broker.rpc.observing.CallObserver`."""
        self.ended(method, code, reason=reason).count(duration.total_seconds())

    def ended(self, method: str, code: str, *, reason: str = "") -> Ended:
        """Returns where calls are counted that end like this, shown once there was one."""
        ended = self._known.get((method, code, reason))
        if ended is None:
            ended = self._known[method, code, reason] = Ended(
                calls=self._calls.of(method, code, reason), seconds=self._duration.of(method)
            )
        return ended
