"""Who has been given which tokens: noted in memory, written in batches, never in a caller's way.

After a leak this is the list of who may hold the token, so what PostgreSQL does not take is kept
and tried again, and a replica that ends writes it first. What a crash loses is what was handed out
in the seconds before it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Final

from broker.domain.disclosure import HandedOut
from broker.ports import Records

FLUSH_SECONDS: Final = 5.0
"""Between batches: so much a crash may lose, and a statement every five seconds is nothing."""

BATCH: Final = 1000
"""Rows in one statement: some milliseconds."""

REPEAT_SECONDS: Final = 900.0
"""While a caller is given the same generation again and again, when that was last is written so
often: a quarter of an hour tells whether somebody still used it on the day of an incident."""

MOST_PENDING: Final = 100_000
"""Pairs of tenant and caller that wait for PostgreSQL: some 40 MB. Only tokens in memory are handed
out while it is away, so that there are no more than callers of them."""


@dataclass(slots=True)
class _Note:
    """What one caller was given of one tenant since the last batch; times of the loop's clock."""

    first_generation: int
    last_generation: int
    first_at: float
    last_at: float

    def widen(self, other: _Note) -> None:
        self.first_generation = min(self.first_generation, other.first_generation)
        self.last_generation = max(self.last_generation, other.last_generation)
        self.first_at = min(self.first_at, other.first_at)
        self.last_at = max(self.last_at, other.last_at)


class Disclosures:
    """Who got what since the last batch. `lost` counts what there was no room for."""

    def __init__(self, records: Records, *, most_pending: int = MOST_PENDING) -> None:
        """`records`: where it is written."""
        self.lost = 0
        self._records = records
        self._most = most_pending
        self._noted: dict[tuple[str, str], int] = {}
        self._noted_since = 0.0
        self._pending: dict[tuple[str, str], _Note] = {}
        self._writing = asyncio.Lock()

    def __len__(self) -> int:
        """How many tenants and callers are to be written."""
        return len(self._pending)

    def note(self, tenant: str, *, caller: str, generation: int) -> None:
        """Notes that a caller was given a token. On the way to every token: a look-up, mostly."""
        who = (tenant, caller)
        if self._noted.get(who) != generation:
            self._note(who, generation)

    def _note(self, who: tuple[str, str], generation: int) -> None:
        if who not in self._pending and len(self._pending) >= self._most:
            self.lost += 1
            return
        now = asyncio.get_running_loop().time()
        self._add(who, _Note(generation, generation, now, now))
        # What is only remembered to spare work may be forgotten at any time.
        if len(self._noted) >= self._most:
            self._noted.clear()
        self._noted[who] = generation

    def _add(self, who: tuple[str, str], note: _Note) -> None:
        known = self._pending.setdefault(who, note)
        if known is not note:
            known.widen(note)

    async def flush(self) -> None:
        """Writes what was noted until now; what comes meanwhile is for the next time.

        One at a time: the last one, at the end, has what an earlier one could not write.

        Raises:
            StoreUnavailable: what is not written is kept for the next time.
        """
        async with self._writing:
            await self._flush()

    async def _flush(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._noted_since >= REPEAT_SECONDS:
            self._noted.clear()
            self._noted_since = now
        taken, self._pending = self._pending, {}
        try:
            while batch := list(islice(taken.items(), BATCH)):
                await self._records.note_handed_out([_handed_out(*each) for each in batch])
                for who, _ in batch:
                    del taken[who]
        finally:
            for who, note in taken.items():
                self._add(who, note)


def _handed_out(who: tuple[str, str], note: _Note) -> HandedOut:
    tenant, caller = who
    now = asyncio.get_running_loop().time()
    return HandedOut(
        tenant=tenant,
        caller=caller,
        first_generation=note.first_generation,
        last_generation=note.last_generation,
        first_age=timedelta(seconds=now - note.first_at),
        last_age=timedelta(seconds=now - note.last_at),
    )
