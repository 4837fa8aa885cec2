"""Background loops: one turn after another until cancelled, whatever a turn meets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from broker.domain.errors import BrokerError
from broker.domain.facts import LoopFailed
from broker.ports import Observer


async def repeat(
    name: str, turn: Callable[[], Awaitable[None]], *, pause: float, observer: Observer
) -> None:
    """Runs `turn` for ever with pauses (seconds) between.

    A turn's failure is reported and the next turn comes: a loop that died of one odd row would
    leave memory to grow old in silence, and one that raised would end the whole broker.
    """
    while True:
        try:
            await turn()
        except Exception as error:  # noqa: BLE001 - see above; reported with its type
            observer.observe(LoopFailed(loop=name, error=_name_of(error)))
        await asyncio.sleep(pause)


def _name_of(error: Exception) -> str:
    """Returns the first failure's name: a task group's own says nothing."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error.reason if isinstance(error, BrokerError) else type(error).__name__
