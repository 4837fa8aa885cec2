"""Whether Redis is asked at all: not for a while after it failed, then by one at a time.

Without it each refresh of an outage pays the timeouts (law 6). Measured on the event loop's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from broker.lease.failure import RedisUnreachable


class Circuit:
    """Closed in good times; open for `pause` after a failure; then one probe decides."""

    def __init__(self, pause: timedelta) -> None:
        self._pause = pause
        self._paused_until: float | None = None
        self._is_probing = False

    @contextmanager
    def asking(self) -> Iterator[bool]:
        """Lets a question through and learns from its end; gives whether it is the probe.

        A question that is cancelled says nothing about Redis.

        Raises:
            RedisUnreachable: Redis is not to be asked now; or the block's own.
        """
        is_probe = self._admit()
        try:
            yield is_probe
        except RedisUnreachable as error:
            self._learn(is_probe=is_probe, is_reachable=error.has_answered)
            raise
        else:
            self._learn(is_probe=is_probe, is_reachable=True)
        finally:
            if is_probe:
                self._is_probing = False

    def open(self) -> None:
        """Begins a pause."""
        self._paused_until = asyncio.get_running_loop().time() + self._pause.total_seconds()

    def _admit(self) -> bool:
        if self._paused_until is None:
            return False
        if self._is_probing or asyncio.get_running_loop().time() < self._paused_until:
            raise RedisUnreachable("paused")
        self._is_probing = True
        return True

    def _learn(self, *, is_probe: bool, is_reachable: bool) -> None:
        if not is_reachable:
            self.open()
        elif is_probe:  # others began before the failure, and know nothing newer
            self._paused_until = None
