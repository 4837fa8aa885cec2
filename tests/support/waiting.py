"""Waiting for what sends no event: another process, the file system."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.01


async def until(holds: Callable[[], bool]) -> None:
    """Waits until a condition holds.

    Raises:
        TimeoutError: it does not after twenty seconds.
    """
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(_POLL_SECONDS)


async def comes_true(holds: Callable[[], bool], *, seconds: float) -> bool:
    """Waits until a condition holds, but no longer than that; says whether it does.

    For what takes seconds: it is asked less often than by `until`.
    """
    give_up_at = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(10 * _POLL_SECONDS)
    return True
