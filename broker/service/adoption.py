"""Adopting escrows: pairs that their owners could not store, stored in their place (law 3).

Read, commit, then delete, never taken out first. Whoever has read an escrow holds it like a pair
until it is stored or stale: Redis may forget it meanwhile. With the pair goes whatever its owner
would have written: its line in the history, and the result that repeated calls are given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from broker.domain.decision import Changed, Unchanged, Why
from broker.domain.errors import (
    KeyUnavailable,
    RecordUnreadable,
    StoreUnavailable,
    SubjectAlreadyConnected,
)
from broker.domain.escrow import Escrow, adopt, refuse_adoption
from broker.domain.facts import EscrowAdopted
from broker.domain.grant import Attempt, AttemptKind, Grant
from broker.domain.history import AttemptOutcome, AttemptRecord
from broker.domain.imports import Import, has_newer, rotated_unstored, stored
from broker.domain.outcomes import SUCCESS, outcome_of
from broker.ports import Beside, Conclude, ConsentStore, Escrows, Observer, PutImport
from broker.service.memory import Memory
from broker.service.news import News, moved_to
from broker.service.recall import Recall
from broker.service.rows import Act, Proposal, Reading, Rows, Written

SWEEP_SECONDS: Final = 5.0
"""Between looks: as soon as what one replica learns has to reach all (law 6). One small question to
Redis where there is nothing."""

KEEP_PAUSE: Final = 1.0
"""Seconds between tries to write back at shutdown, which lasts as long as they fail."""


class Adoption:
    """Adopts escrows for this replica."""

    def __init__(
        self,
        escrows: Escrows,
        rows: Rows,
        memory: Memory,
        news: News,
        *,
        consents: ConsentStore,
        recall: Recall,
        observer: Observer,
    ) -> None:
        """All parts are the process's own, one each."""
        self._consents = consents
        self._recall = recall
        self._escrows = escrows
        self._rows = rows
        self._memory = memory
        self._news = news
        self._observer = observer
        self._held: dict[tuple[str, int], Escrow] = {}

    def __len__(self) -> int:
        """How many escrows were read and are neither stored nor stale."""
        return len(self._held)

    async def find(self, tenant: str) -> Sequence[Escrow] | None:
        """Reads a tenant's escrows and holds them; None: nobody knows whether there are any."""
        found = await self._escrows.find(tenant)
        self._hold(found or ())
        held = [each for each in self._held.values() if each.tenant == tenant]
        return held if found is not None or held else None

    async def sweep(self) -> None:
        """Adopts whatever can be adopted.

        Raises:
            StoreUnavailable: PostgreSQL is away; what was read is held.
        """
        self._hold(await self._escrows.everything() or ())
        unforeseen: Exception | None = None
        for escrow in list(self._held.values()):
            try:
                await self.adopt(escrow)
            except (KeyUnavailable, RecordUnreadable):
                continue  # held, and no reason to keep the others waiting
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - raised below, behind the others' turn
                unforeseen = unforeseen or error
        if unforeseen is not None:
            raise unforeseen

    async def kept(self) -> None:
        """Waits until nothing that was read depends on this process.

        Its owner may be dead, and Redis may have forgotten it since: so it is written back, unless
        it is stored or stale first. Written once too often, it is found stale by the next sweep.
        """
        while True:
            acknowledged = [await self._escrows.put(each) for each in list(self._held.values())]
            if all(acknowledged):
                return
            await asyncio.sleep(KEEP_PAUSE)

    async def adopt(self, escrow: Escrow, *, adopter: Attempt | None = None) -> Reading:
        """Stores the pair, or finds that nobody needs it; returns the row as it is then.

        `adopter`: our own attempt, which does not stand in the way.

        Raises:
            StoreUnavailable, KeyUnavailable, RecordUnreadable: not yet; it is held.
        """
        reading = await self._rows.read(escrow.tenant)
        try:
            written = await self._store(escrow, reading, adopter)
        except SubjectAlreadyConnected as error:
            written = await self._refuse(escrow, error, adopter)
        else:
            if written.is_stale:
                stale = _line(escrow, written.reading, AttemptOutcome.STALE)
                await self._rows.note(written.reading, stale)
        if written.not_allowed is not Why.ATTEMPT_LIVE:
            await self._finish(escrow, written)
        return written.reading

    async def _store(self, escrow: Escrow, reading: Reading, adopter: Attempt | None) -> Written:
        def propose(current: Reading) -> Proposal:
            decision = adopt(escrow, current.grant, adopter=adopter, now=current.now)
            if not isinstance(decision, Changed):
                return Proposal(decision=decision)
            ended = _line(escrow, current, AttemptOutcome.ROTATED, after=decision.after)
            return Proposal(decision=decision, ended=ended, beside=_concluding(escrow))

        return await self._rows.write(reading, propose, _act(escrow))

    async def _refuse(
        self, escrow: Escrow, error: SubjectAlreadyConnected, adopter: Attempt | None
    ) -> Written:
        """Lets it go, as its owner would have: the company is another tenant's."""
        while True:
            # Who touches an import's record changes the row: what is read after it is of the row.
            seen = await self._rows.read(escrow.tenant)
            beside = await self._refusing(escrow, error)
            written = await self._write_refusal(escrow, seen, error, beside=beside, adopter=adopter)
            if written.not_allowed is not Why.MOVED_ON:
                break
        why = written.not_allowed or Why.STATE
        return Written(reading=written.reading, not_allowed=why)

    async def _write_refusal(
        self,
        escrow: Escrow,
        seen: Reading,
        error: SubjectAlreadyConnected,
        *,
        beside: Beside | None,
        adopter: Attempt | None,
    ) -> Written:
        def propose(current: Reading) -> Proposal:
            if current.snapshot.version != seen.snapshot.version:
                return Proposal(decision=Unchanged(why=Why.MOVED_ON))
            decision = refuse_adoption(escrow, current.grant, adopter=adopter, now=current.now)
            if not isinstance(decision, Changed):
                return Proposal(decision=decision)
            ended = _line(escrow, current, AttemptOutcome.ROTATED, after=decision.after)
            return Proposal(decision=decision, ended=ended, beside=beside)

        return await self._rows.write(seen, propose, _act(escrow, reason=error.reason))

    async def _refusing(self, escrow: Escrow, error: SubjectAlreadyConnected) -> Beside | None:
        if escrow.state_hash is not None:
            return Conclude(state_hash=escrow.state_hash, outcome=outcome_of(error))
        if escrow.import_fingerprint is None:
            return None
        found = await self._consents.find_import(escrow.import_fingerprint)
        # Whoever presented it since may have put a newer token on record; else this is the only
        # copy of the newest one (law 3).
        if found is not None and has_newer(found, escrow.imported):
            return None
        brought = _brought(escrow.tenant, escrow.import_fingerprint)
        return PutImport(record=rotated_unstored(brought, escrow.issued.refresh_token))

    async def adopt_all(self, tenant: str) -> None:
        """Adopts whatever escrows a tenant has, as far as anybody knows; raises as `adopt`."""
        for escrow in await self.find(tenant) or ():
            await self.adopt(escrow)

    async def _finish(self, escrow: Escrow, written: Written) -> None:
        self._memory.keep(written.reading)
        if written.not_allowed is None:
            self._recall.keep(written.reading.grant)
            await self._news.announce(moved_to(written.reading))
        self._observer.observe(
            EscrowAdopted(
                tenant=escrow.tenant,
                number=escrow.attempt.number,
                not_allowed=written.not_allowed,
            )
        )
        await self._escrows.drop(escrow)
        self._held.pop(_slot(escrow), None)

    def _hold(self, found: Sequence[Escrow]) -> None:
        self._held |= {_slot(each): each for each in found}


def _act(escrow: Escrow, *, reason: str = "") -> Act:
    # A consent is on record even where the state stays; who gave it, the escrow does not say.
    is_consent = escrow.attempt.kind is not AttemptKind.REFRESH
    return Act(call="adopt an escrow", reason=reason, is_administrative=is_consent)


def _concluding(escrow: Escrow) -> Beside | None:
    if escrow.state_hash is not None:
        return Conclude(state_hash=escrow.state_hash, outcome=SUCCESS)
    if escrow.import_fingerprint is not None:
        return PutImport(record=stored(_brought(escrow.tenant, escrow.import_fingerprint)))
    return None


def _brought(tenant: str, fingerprint: bytes) -> Import:
    # The rest of the record was about presenting the token, which is over.
    return Import(tenant=tenant, fingerprint=fingerprint, refresh_token=None, presentations=1)


def _line(
    escrow: Escrow, current: Reading, outcome: AttemptOutcome, *, after: Grant | None = None
) -> AttemptRecord:
    # What its owner knew besides, such as how long it took, is not in the escrow.
    return AttemptRecord(
        tenant=escrow.tenant,
        attempt=escrow.attempt,
        outcome=outcome,
        ended_at=current.now,
        generation_after=(after or current.grant).generation,
    )


def _slot(escrow: Escrow) -> tuple[str, int]:
    return escrow.tenant, escrow.attempt.number
