"""A bounded number of places for looks, and who gets the next one when all are taken.

Who has news goes before who was just asked for, and both before who is only due: a look in vain at
ten thousand tenants must not hold up the one that has changed. In each lane they come in order.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import TypeAlias

_Lane: TypeAlias = OrderedDict[Hashable, asyncio.Future[None]]


class Haste(IntEnum):
    """Why somebody wants a place; the lowest goes first."""

    NEWS = 0
    ASKED = 1
    DUE = 2


class Places:
    """The places. Nobody waits for two at once."""

    def __init__(self, most: int) -> None:
        """`most`: at once."""
        self._free = most
        self._lanes: dict[Haste, _Lane] = {haste: OrderedDict() for haste in Haste}

    @asynccontextmanager
    async def place(self, who: Hashable, haste: Haste) -> AsyncIterator[None]:
        """Waits for a place, and keeps it while the block runs. Safe to cancel."""
        await self._take(who, haste)
        try:
            yield
        finally:
            self._give_back()

    def hurry(self, who: Hashable, haste: Haste) -> None:
        """Lets somebody who waits change to a faster lane; at its end."""
        for slower in Haste:
            if slower > haste and (place := self._lanes[slower].pop(who, None)) is not None:
                self._lanes[haste][who] = place

    async def _take(self, who: Hashable, haste: Haste) -> None:
        if self._free:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lanes[haste][who] = place
        try:
            await place
        except asyncio.CancelledError:
            for lane in self._lanes.values():
                lane.pop(who, None)
            if not place.cancelled():
                self._give_back()  # it was given one in the same moment
            raise

    def _give_back(self) -> None:
        for lane in self._lanes.values():
            while lane:
                _, place = lane.popitem(last=False)
                if not place.done():
                    place.set_result(None)
                    return
        self._free += 1
