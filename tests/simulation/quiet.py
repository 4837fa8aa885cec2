"""Turns of a loop that would find nothing are passed over: most of a calm schedule is such turns.

A loop that looks every two seconds for what is not there waits here instead, until something has
stirred, and goes on at the turn at which it would have seen it.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from support.virtual_time import nap


class Quiet:
    """Whoever changes something that a loop looks for stirs."""

    def __init__(self) -> None:
        """Begins in silence."""
        self._waiting: list[asyncio.Future[None]] = []

    def stir(self) -> None:
        """Lets everybody look at their next turn."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():  # or its process was killed
                each.set_result(None)

    async def stirred(self) -> None:
        """Returns once something has stirred."""
        stirred = asyncio.get_running_loop().create_future()
        self._waiting.append(stirred)
        await stirred

    async def pass_turns(self, pause: float, *, at_most: float | None = None) -> None:
        """Returns at the first turn, `pause` seconds apart from now on, after something stirred.

        `at_most`: seconds after which something is there to be seen, stirred or not.
        """
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        if at_most is None:
            await self.stirred()
        else:
            await self._stirred_within(at_most)
        turns = math.ceil((loop.time() - began_at) / pause)
        left = began_at + turns * pause - loop.time()
        if left > 0:
            await nap(left)

    async def _stirred_within(self, seconds: float) -> None:
        stirred = asyncio.get_running_loop().create_future()
        self._waiting.append(stirred)
        timer = asyncio.get_running_loop().call_later(seconds, _stir_one, stirred)
        try:
            await stirred
        finally:
            timer.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """What loops look for, each of them for something else."""

    commits: Quiet = field(default_factory=Quiet)
    """Any commit of a grant."""

    moves: Quiet = field(default_factory=Quiet)
    """Those commits of which others have to be told."""

    fleet: Quiet = field(default_factory=Quiet)
    escrows: Quiet = field(default_factory=Quiet)

    def stir(self) -> None:
        """Lets everybody look: what it was is not the same for all, as with the weather."""
        for each in (self.commits, self.moves, self.fleet, self.escrows):
            each.stir()


def _stir_one(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
