"""What this process must not die with: answers from Pleo that PostgreSQL has not taken (law 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Holdings:
    """Counts attempts that are claimed and not settled; shutdown waits until there are none."""

    def __init__(self) -> None:
        self._count = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many are held."""
        return self._count

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds up shutdown while the block runs."""
        self._count += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._empty.set()

    async def none_left(self) -> None:
        """Waits until nothing is held."""
        # Between an answer and its settlement the count touches zero for a moment, which wakes
        # who waits here: it counts only if it is still so.
        while self._count:
            await self._empty.wait()
