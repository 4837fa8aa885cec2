"""When a server that leaves may stop: once nobody calls it any more, or as soon as nobody just has.

gRPC's own stop answers what it has handed to us. What comes while it begins, or waits to be handed
over, it resets: the caller is told CANCELLED, as if it had changed its mind, and before GOAWAY has
reached it more may be on the way. So the server says first that it does not serve, to those who
watch its health, goes on answering, and stops when no call has come for a while.

Callers who do not watch go on calling. The longer it takes, the less silence is asked for, so that
it stops in a gap between two calls. One on the wire at that moment is lost to who does not retry
(`SERVICE_CONFIG` of the client does): no server can keep it with what gRPC has.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

SILENCE_SECONDS: Final = 0.2
"""Without a call, after which those who watch have left: their word travels in a few milliseconds,
and a caller whose container is throttled stands still for a tenth of a second at a time."""

LONGEST_SECONDS: Final = 1.0
"""For all of it: who has not left by then does not watch, and only GOAWAY moves it."""

_SHORTEST_SECONDS: Final = 0.005
"""Between looks: what is missing shrinks as it is waited for, and would never be nothing."""


async def until_silent(
    silence: Callable[[], float], *, is_watched: bool, longest: float = LONGEST_SECONDS
) -> None:
    """Waits until it is silent enough to stop, but no longer than `longest`.

    `silence`: for how many seconds no call has come. `is_watched`: somebody has just been told, so
    that earlier silence says nothing.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        waited = loop.time() - began
        wanted = SILENCE_SECONDS * (longest - waited) / LONGEST_SECONDS
        missing = wanted - min(silence(), waited if is_watched else math.inf)
        if missing <= 0:
            return
        await asyncio.sleep(max(missing, _SHORTEST_SECONDS))
