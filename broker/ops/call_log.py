"""Writes calls that failed to the log, with why, for whom and by which caller; others are counted.

A caller who is refused comes back at once and again, so what is alike is sampled.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from broker.config import LogLevel
from broker.ops.logs import Log
from broker.ops.sampling import Sampler

_OURS: Final = frozenset({"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNKNOWN"})
"""Codes of what the caller has no part in."""


class CallLog:
    """Upholds `broker.rpc.observing.CallObserver`."""

    def __init__(self, log: Log, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that never go back, for the sampling."""
        self._log = log
        self._sampler = Sampler(clock)

    def call_ended(
        self, *, method: str, code: str, reason: str, duration: timedelta, tenant: str | None
    ) -> None:
        """Writes a line about a failure, unless one that is alike was told lately."""
        level = LogLevel.WARNING if code in _OURS else LogLevel.INFO
        if code == "OK" or not self._log.takes(level):
            return
        held_back = self._sampler.admit((method, code, reason, tenant))
        if held_back is None:
            return
        self._log.event(
            "call_failed",
            level=level,
            method=method,
            code=code,
            reason=reason or None,
            tenant=tenant,
            duration_seconds=duration,
            held_back=held_back or None,
        )
