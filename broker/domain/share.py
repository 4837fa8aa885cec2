"""How much of the fleet's rate towards Pleo is one replica's own.

Nobody is asked before each presentation: replicas count each other, and each takes its part. One
that the others have not counted yet takes little, since they have left nothing for it.
"""

from __future__ import annotations

from typing import Final

NEWCOMERS: Final = 10
"""So many may start at once within the rate. One that joins others who go at the full rate adds a
tenth to it for the seconds until they have counted it."""

LEAST: Final = 1.0
"""A second, for a newcomer: at a low rate a caller waits behind another, but not for long."""


def replicas_share(rate: float, *, alive: int, is_new: bool) -> float:
    """Returns what one replica may send, as `rate`: per second.

    `alive`: all that have given signs of life, as last counted, this one included or not counted
    yet. `is_new`: the others may not have counted it.
    """
    share = rate / max(1, alive)
    return min(share, max(LEAST, rate / NEWCOMERS)) if is_new else share
