"""Ending an import that made no grant: the row is let go, and its record says what came of it.

A record is written with the row's change, so that two imports of one token never write it side by
side. The exception is a rotated token whose import lost the row meanwhile: its record may hold the
only copy, and is written unless another import has touched it (law 3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from broker.domain.answers import NotProcessed, Rotated
from broker.domain.decision import Changed, Decision, Unchanged, Why
from broker.domain.history import AttemptOutcome
from broker.domain.imports import Import
from broker.ports import ConsentStore, Presentation, PutImport
from broker.service.consenting import Consenting, closing
from broker.service.rows import Reading
from broker.service.settle import LONGEST_PAUSE, Claimed, Ending, error_of, outcome_of


class ImportRecords:
    """Writes what came of imports."""

    def __init__(self, consenting: Consenting, consents: ConsentStore) -> None:
        """`consenting`: what exchanges and imports share."""
        self._consenting = consenting
        self._consents = consents

    async def end(
        self,
        claimed: Claimed,
        presentation: Presentation | None,
        *,
        before: Import,
        after: Import,
        is_late: bool = False,
    ) -> None:
        """Settles an attempt that stores no pair. `before`: the record as the claim wrote it.

        `is_late`: a pair came, and others had come first.

        Raises:
            StoreUnavailable: PostgreSQL did not take it; the record is as before, and nothing that
            only we have is lost.
        """
        ending = _ending(claimed, presentation, after)
        if is_late:
            ending = replace(ending, outcome=AttemptOutcome.STALE)
        written = await self._consenting.settle(claimed, ending)
        if written.not_allowed is not None and ending.holds_pair:
            await self._put_late(claimed, ending, before=before)

    async def _put_late(self, claimed: Claimed, ending: Ending, *, before: Import) -> None:
        while (seen := await self._untouched(before)) is not None:
            late = replace(ending, decide=_unless_moved(seen))
            written = await self._consenting.settle(replace(claimed, reading=seen), late)
            if written.not_allowed is None:
                return

    async def _untouched(self, before: Import) -> Reading | None:
        """Returns a row under which the record is as before: who touches it changes the row."""
        while True:
            try:
                reading = await self._consenting.rows.read(before.tenant)
                found = await self._consents.find_import(before.fingerprint)
            except Exception:  # noqa: BLE001 - whatever it is, nobody else has the token (law 3)
                await asyncio.sleep(LONGEST_PAUSE)
                continue
            is_as_before = found is not None and _same(found, before)
            return reading if is_as_before else None


def _ending(claimed: Claimed, presentation: Presentation | None, record: Import) -> Ending:
    answer = presentation.answer if presentation else NotProcessed(code="")
    return Ending(
        decide=closing(claimed.attempt, answer),
        outcome=outcome_of(answer) if presentation else AttemptOutcome.LET_GO,
        presentation=presentation,
        beside=PutImport(record=record),
        holds_pair=isinstance(answer, Rotated),
        error=error_of(answer),
    )


def _unless_moved(seen: Reading) -> Callable[[Reading], Decision]:
    def decide(reading: Reading) -> Decision:
        if reading.snapshot.version != seen.snapshot.version:
            return Unchanged(why=Why.MOVED_ON)
        return Changed(after=reading.grant)

    return decide


def _same(found: Import, before: Import) -> bool:
    return replace(found, created_at=before.created_at) == before
