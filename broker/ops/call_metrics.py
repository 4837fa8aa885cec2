"""Metrics of calls: how many, how they ended, how long they took."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Counter, Histogram

from broker.ops.instruments import CALL_SECONDS, Instruments


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """Where calls that end alike are counted."""

    count: Counter
    duration: Histogram


class CallMetrics:
    """Stands on the way of every call: one look-up and two increments.

    Methods, codes and reasons are those of the API, so there are not many ways to end.
    """

    def __init__(self, make: Instruments) -> None:
        self._calls = make.counter(
            "calls",
            "Calls, by gRPC status and the reason of ours, if it was one",
            labels=("method", "code", "reason"),
        )
        self._duration = make.histogram(
            "call_duration_seconds",
            "How long calls took; streams as long as they were watched",
            bounds=CALL_SECONDS,
            labels=("method",),
        )
        self._known: dict[tuple[str, str, str], _Ended] = {}

    def call_ended(self, *, method: str, code: str, reason: str, duration: timedelta) -> None:
        """Counts. As `broker.rpc.observing.CallObserver`."""
        ended = self._known.get((method, code, reason))
        if ended is None:
            ended = self._learn(method, code, reason=reason)
        ended.count.inc()
        ended.duration.observe(duration.total_seconds())

    def _learn(self, method: str, code: str, *, reason: str) -> _Ended:
        ended = _Ended(
            count=self._calls.labels(method, code, reason), duration=self._duration.labels(method)
        )
        self._known[method, code, reason] = ended
        return ended
