"""What this process must not die with: answers from Pleo that nobody else has (law 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Hold:
    """One reason to hold up shutdown."""

    def __init__(self, on_release: Callable[[], None]) -> None:
        self._on_release = on_release
        self._is_released = False

    def release(self) -> None:
        """Ends it, once: the pair is stored, or an escrow of it is acknowledged."""
        if not self._is_released:
            self._is_released = True
            self._on_release()


class Holdings:
    """Counts attempts that may have a pair; shutdown waits until there are none."""

    def __init__(self) -> None:
        self._count = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many are held."""
        return self._count

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """Holds up shutdown while the block runs, or until the hold is released."""
        self._count += 1
        self._empty.clear()
        hold = Hold(self._released)
        try:
            yield hold
        finally:
            hold.release()

    async def none_left(self) -> None:
        """Waits until nothing is held."""
        # Between an answer and its settlement the count touches zero for a moment, which wakes
        # who waits here: it counts only if it is still so.
        while self._count:
            await self._empty.wait()

    def _released(self) -> None:
        self._count -= 1
        if not self._count:
            self._empty.set()
