"""Writing grants that nobody asked for: read, decide, write, and tell everybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker.domain.decision import Decision
from broker.service.memory import Memory
from broker.service.news import News, moved_to
from broker.service.rows import Act, Proposal, Reading, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Overseer:
    """Changes grants in their own interest."""

    rows: Rows
    memory: Memory
    news: News

    async def write(self, tenant: str, decide: Callable[[Reading], Decision], act: Act) -> bool:
        """Writes one grant, if it may be; says whether it was.

        Raises:
            StoreUnavailable: it may have been. KeyUnavailable, RecordUnreadable: it was not.
        """
        reading = await self.rows.read(tenant)
        written = await self.rows.write(reading, lambda row: Proposal(decision=decide(row)), act)
        self.memory.keep(written.reading)
        if written.not_allowed is None:
            await self.news.announce(moved_to(written.reading))
        return written.not_allowed is None
