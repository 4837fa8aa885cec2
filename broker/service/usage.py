"""When each grant was last asked for: noted in memory, written in batches.

Reading a token writes nothing. What a crash loses is a few seconds of notes, which nobody's
decision hangs on.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from broker.ports import GrantStore

FLUSH_SECONDS: Final = 15.0
"""Between batches: last use is shown to people and decides about days."""

BATCH: Final = 1000
"""Tenants in one statement: some milliseconds of locks on rows that others want to write."""


class Usage:
    """Who asked since the last batch."""

    def __init__(self, store: GrantStore) -> None:
        """`store`: where it is written."""
        self._store = store
        self._tenants: set[str] = set()

    def __len__(self) -> int:
        """How many tenants are to be written."""
        return len(self._tenants)

    def note(self, tenant: str) -> None:
        """Notes that somebody got a token. On the way to every token: costs next to nothing."""
        self._tenants.add(tenant)

    async def flush(self) -> None:
        """Writes what was noted until now; what comes meanwhile is for the next time.

        Raises:
            StoreUnavailable: what is not written is kept for the next time.
        """
        noted, self._tenants = self._tenants, set()
        try:
            while batch := list(islice(noted, BATCH)):
                await self._store.note_used(batch)
                noted.difference_update(batch)
        finally:
            self._tenants |= noted
