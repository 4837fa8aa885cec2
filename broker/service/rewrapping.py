"""Seals every row anew under the primary key, and tells how far it is.

It belongs to its caller and ends when that one leaves: each batch is a statement of its own, so
what is done stays done, and the call is simply made again. Escrows are not sealed anew: they live
for seconds, and are waited for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from broker.domain.errors import KeyUnavailable, StoreUnavailable
from broker.domain.facts import KeysRewrapped
from broker.ports import EscrowKeys, KeyStore, Observer, RewrapBatch

TELL_SECONDS: Final = 2.0
"""Between two words of how far it is: a person is looking."""

MOST_PASSES: Final = 3
"""Rows that were being written are gone through again. Who comes after the third time is sealed
under an older key by a replica that has not the newest keyset, and will be again."""

AGAIN_SECONDS: Final = 0.5
"""Before another pass: longer than a statement holds a row."""

ESCROW_SECONDS: Final = 30.0
"""For escrows to be adopted, which every replica looks for every five seconds."""


@dataclass(slots=True, kw_only=True)
class RewrapProgress:
    """How far it is."""

    key_id: int
    """That rows are sealed under from now on."""

    total: int
    """Rows and escrows that were under another key when it began."""

    rewrapped: int = 0
    unreadable: int = 0

    def take(self, batch: RewrapBatch) -> None:
        """Adds what became of some rows."""
        self.rewrapped += batch.rewrapped
        self.unreadable += batch.unreadable
        # Rows may have come to an older key since they were counted.
        self.total = max(self.total, self.rewrapped + self.unreadable)


class Rewrapping:
    """Does it, in any replica; several at once do no harm."""

    def __init__(self, store: KeyStore, escrows: EscrowKeys, observer: Observer) -> None:
        """`escrows`: the sealed copies in Redis."""
        self._store = store
        self._escrows = escrows
        self._observer = observer

    async def count_keys(self) -> RewrapProgress:
        """Counts the rows and escrows that are under other keys, and changes nothing.

        Raises:
            KeyUnavailable, StoreUnavailable: as `rewrap_keys`.
        """
        escrows, use = await self._escrows_left(), await self._store.key_use()
        return self._beginning(Counter(use) + escrows)

    async def rewrap_keys(self, *, by: str, reason: str) -> AsyncGenerator[RewrapProgress, None]:
        """Rewraps, and yields how far it is: at the start, every few seconds, and at the end.

        Raises:
            KeyUnavailable: this replica lacks a key in use; nothing was changed.
            StoreUnavailable: PostgreSQL or, for the escrows, Redis cannot be asked. What is done
            stays done.
        """
        progress = await self.count_keys()
        await self._store.note_rewrap(by=by, reason=reason)
        try:
            yield progress
            async with aclosing(self._passes(progress)) as told:
                async for each in told:
                    yield each
            async with aclosing(self._adopted(progress)) as told:
                async for each in told:
                    yield each
        finally:
            self._tell(progress, by, reason=reason)

    def _beginning(self, use: Mapping[int, int]) -> RewrapProgress:
        missing = sorted(key_id for key_id in use if not self._store.can_open(key_id))
        if missing:
            what = f"this replica lacks keys in use: {missing}; roll the newest keyset out"
            raise KeyUnavailable(what, metadata={"key_id": str(missing[0])})
        primary = self._store.primary_key_id()
        return RewrapProgress(key_id=primary, total=_others(use, primary))

    async def _passes(self, progress: RewrapProgress) -> AsyncGenerator[RewrapProgress, None]:
        now = asyncio.get_running_loop().time
        told_at = now()
        for _ in range(MOST_PASSES):
            passed_over = 0
            # What did not open is met in every pass, and counted in the last.
            progress.unreadable = 0
            async with aclosing(self._store.rewrap()) as batches:
                async for batch in batches:
                    progress.take(batch)
                    passed_over += batch.passed_over
                    if now() >= told_at + TELL_SECONDS:
                        told_at = now()
                        yield progress
            if not passed_over:
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _adopted(self, progress: RewrapProgress) -> AsyncGenerator[RewrapProgress, None]:
        """Waits for the escrows; then counts what is left, rows included.

        Counted anew, since rows also come to the primary key by being rotated meanwhile.
        """
        give_up_at = asyncio.get_running_loop().time() + ESCROW_SECONDS
        while left := (await self._escrows_left()).total():
            yield progress
            if asyncio.get_running_loop().time() >= give_up_at:
                break
            await asyncio.sleep(TELL_SECONDS)
        left += _others(await self._store.key_use(), progress.key_id)
        progress.total = max(progress.total, left)
        progress.rewrapped = progress.total - left
        yield progress

    async def _escrows_left(self) -> Counter[int]:
        """Returns the escrows under other keys than the primary one."""
        use = await self._escrows.key_use()
        if use is None:
            # "Unreachable" is not "none": a pair may lie there that only an older key opens.
            raise StoreUnavailable("Redis cannot be asked which keys its escrows are under")
        left = Counter(use)
        del left[self._store.primary_key_id()]
        return left

    def _tell(self, progress: RewrapProgress, by: str, *, reason: str) -> None:
        self._observer.observe(
            KeysRewrapped(
                by=by,
                reason=reason,
                key_id=progress.key_id,
                total=progress.total,
                rewrapped=progress.rewrapped,
                unreadable=progress.unreadable,
            )
        )


def _others(use: Mapping[int, int], primary: int) -> int:
    """Returns how many are under other keys."""
    return sum(count for key_id, count in use.items() if key_id != primary)
