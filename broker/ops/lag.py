"""How late the event loop is: everything here waits for it, probes and heartbeats too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_PAUSE_SECONDS: Final = 0.5
"""Between looks: two a second cost nothing, and a stall of seconds is seen at once."""


async def watch_lag(tell: Callable[[float], None]) -> None:
    """Tells, for ever, by how many seconds a timer came late."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _PAUSE_SECONDS
        await asyncio.sleep(_PAUSE_SECONDS)
        tell(max(loop.time() - due, 0.0))
