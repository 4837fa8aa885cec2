"""The event loop's heartbeat, and who listens to it from a thread of its own.

A process whose event loop is blocked answers no caller, and looks alive to whoever only asks
whether it runs. It could not say so itself: what answers must not wait for the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TypeVar

T = TypeVar("T")

BEAT_SECONDS: Final = 0.5
"""Between beats, which cost nothing to speak of."""

BLOCKED_AFTER: Final = timedelta(seconds=10)
"""Without a beat for so long the loop counts as blocked. Nothing here takes a tenth of it in one
step; a machine that is short of processors can starve a process for seconds, and a restart would
only make that worse."""


class Pulse:
    """When the event loop last took a step. Read from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._beat_at = time.monotonic()

    def silence(self) -> timedelta:
        """Returns how long ago the last beat was."""
        return timedelta(seconds=time.monotonic() - self._beat_at)

    def beat(self) -> None:
        """Takes a step; the loop's own thread does it."""
        self._beat_at = time.monotonic()

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """Has the loop answer a question, as soon as it can; a plain call that does no I/O."""
        answer: Future[T] = Future()

        def tell() -> None:
            if answer.set_running_or_notify_cancel():
                answer.set_result(question())

        self._loop.call_soon_threadsafe(tell)
        return answer


@contextmanager
def pulse() -> Iterator[Pulse]:
    """Lets the running loop beat as long as the context lasts."""
    loop = asyncio.get_running_loop()
    beating = Pulse(loop)
    timer: asyncio.TimerHandle

    def step() -> None:
        nonlocal timer
        beating.beat()
        timer = loop.call_later(BEAT_SECONDS, step)

    timer = loop.call_later(BEAT_SECONDS, step)
    try:
        yield beating
    finally:
        timer.cancel()
