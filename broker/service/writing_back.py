"""Writes back what PostgreSQL has lost and this replica remembers (law 3).

All that is kept is compared when the database is found to be another one, and each row once more
where it is read. Claims wait for an attempt's span and then for a quarantine (`past.py`), so that
this comes first.
"""

from __future__ import annotations

from typing import Final

from broker.domain.decision import Why
from broker.domain.errors import KeyUnavailable, RecordUnreadable, SubjectAlreadyConnected
from broker.domain.facts import WrittenBack
from broker.domain.grant import Grant
from broker.domain.recall_writes import write_back
from broker.ports import Observer
from broker.service.memory import Memory
from broker.service.news import News, moved_to
from broker.service.recall import Recall
from broker.service.rows import Act, Proposal, Reading, Rows, Written

TURN_SECONDS: Final = 1.0
"""Between turns, which cost nothing while there is nothing to compare."""

_ACT: Final = Act(call="write back", reason="PostgreSQL had lost it", is_administrative=True)


class WritingBack:
    """Writes back, for this replica."""

    def __init__(
        self, rows: Rows, recall: Recall, memory: Memory, news: News, observer: Observer
    ) -> None:
        """All parts are the process's own, one each."""
        self._rows = rows
        self._recall = recall
        self._memory = memory
        self._news = news
        self._observer = observer

    async def turn(self) -> None:
        """Compares what is in doubt, and writes back what is lost.

        Raises:
            StoreUnavailable: the rest is compared at the next turn.
        """
        for tenant in self._recall.doubted():
            try:
                await self.read(tenant)
            except (KeyUnavailable, RecordUnreadable):
                continue  # tried again at the next turn, and no reason to keep the others waiting
            except Exception:
                # It may be this row's alone, as a lock: then the next turn begins with others.
                self._recall.compare_last(tenant)
                raise

    async def read(self, tenant: str) -> Reading:
        """Reads a row, after writing back what is newer.

        Raises:
            StoreUnavailable: PostgreSQL cannot be asked.
            KeyUnavailable, RecordUnreadable: what is newer cannot be sealed; it is kept.
        """
        reading = await self._rows.read(tenant)
        kept = self._recall.newer_than(reading.grant)
        if kept is None:
            self._recall.compared(tenant)
            return reading
        try:
            written = await self._write(kept, reading)
        except SubjectAlreadyConnected:
            # The company has been connected by another tenant since.
            written = Written(reading=reading, not_allowed=Why.STATE)
            self._recall.forget(tenant)
        await self._conclude(kept, written)
        return written.reading

    async def _write(self, kept: Grant, reading: Reading) -> Written:
        def propose(current: Reading) -> Proposal:
            return Proposal(decision=write_back(kept, current.grant, now=current.now))

        return await self._rows.write(reading, propose, _ACT)

    async def _conclude(self, kept: Grant, written: Written) -> None:
        if written.not_allowed is Why.ATTEMPT_LIVE:
            return  # tried again when that attempt is over
        grant = written.reading.grant
        self._recall.compared(grant.tenant)
        if written.not_allowed is None:
            self._recall.keep(grant)
            self._memory.keep(written.reading)
            await self._news.announce(moved_to(written.reading))
        if written.not_allowed is Why.MOVED_ON:
            return  # the row had only been read before it was stored
        told = WrittenBack(
            tenant=grant.tenant, generation=kept.generation, not_allowed=written.not_allowed
        )
        self._observer.observe(told)
