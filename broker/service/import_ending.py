"""Ending an import that made no grant: what is on record of it, and what the caller is told.

The row is let go, and the record is written with it, so that two imports of one token never write
it side by side. The exception is a rotated token whose import lost the row meanwhile: its record
may hold the only copy, and is written unless another import has touched it (law 3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias, assert_never

from broker.domain.answers import Misconfigured, NotProcessed, Refused, Rotated, Unknown
from broker.domain.backoff import FIRST
from broker.domain.decision import Changed, Decision, Unchanged, Why
from broker.domain.errors import (
    BrokerError,
    ProviderRejectedClient,
    ProviderUnavailable,
    RefreshOutcomeUnknown,
    RefreshTokenRejected,
)
from broker.domain.history import AttemptOutcome
from broker.domain.imports import Import, not_presented, refused, unanswered
from broker.ports import ConsentStore, Presentation, PutImport
from broker.service.consenting import Consenting, closing
from broker.service.endings import error_of, outcome_of
from broker.service.rows import Reading
from broker.service.settle import LONGEST_PAUSE, Claimed, Ending

Tokenless: TypeAlias = Refused | NotProcessed | Unknown | Misconfigured
"""The answers that bring no tokens."""


def record_after(record: Import, answer: Tokenless) -> Import:
    """Returns what is on record after an answer that brought no tokens."""
    match answer:
        case Refused(error=error):
            return refused(record, error)
        case NotProcessed() | Misconfigured():
            return not_presented(record)
        case Unknown():
            return unanswered(record)
        case _:
            assert_never(answer)


def error_after(claimed: Claimed, answer: Tokenless) -> BrokerError:
    """Returns what the caller is told about an answer that brought no tokens."""
    tenant = claimed.reading.grant.tenant
    match answer:
        case Refused(error=error):
            return RefreshTokenRejected(tenant=tenant, error=error)
        case Misconfigured(error=error):
            return ProviderRejectedClient(tenant=tenant, error=error)
        case NotProcessed(retry_after=retry_after):
            return ProviderUnavailable(
                "Pleo cannot be reached, or asks us to wait: import again",
                tenant=tenant,
                retry_after=retry_after or FIRST,
            )
        case Unknown():
            return RefreshOutcomeUnknown(
                "the token was sent to Pleo and no answer came: import again later",
                tenant=tenant,
                retry_after=max(claimed.attempt.deadline - claimed.reading.latest_now(), FIRST),
            )
        case _:
            assert_never(answer)


def came_too_late(tenant: str) -> BrokerError:
    """Returns what the caller is told whose token became no grant, because others were faster."""
    # Of the reasons to come back later the one that no channel obeys by itself: a call that is
    # tried again unasked would undo the revocation.
    return RefreshOutcomeUnknown(
        "another consent or a revocation came first: import again if it is still wanted",
        tenant=tenant,
    )


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
