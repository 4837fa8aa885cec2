"""What is done with a pair that PostgreSQL does not take, until it does (law 3).

Its owner tries again for as long as it lives, and nobody else has it. So a copy goes to Redis,
sealed, where any replica can adopt it; and the access token stands in for callers, marked degraded,
because the one that it replaced is dead. What PostgreSQL has taken is remembered, since it may lose
it again.
"""

from __future__ import annotations

from dataclasses import replace

from broker.domain.decision import Changed
from broker.domain.escrow import Escrow, adopt
from broker.domain.facts import EscrowWritten
from broker.domain.grant import Grant
from broker.ports import Escrows, Observer
from broker.service.holdings import Hold
from broker.service.memory import Memory
from broker.service.recall import Recall
from broker.service.rows import Reading


class Safekeeping:
    """Keeps pairs safe."""

    def __init__(
        self, escrows: Escrows, memory: Memory, recall: Recall, observer: Observer
    ) -> None:
        """All parts are the process's own, one each."""
        self._recall = recall
        self._escrows = escrows
        self._memory = memory
        self._observer = observer

    async def keep(self, escrow: Escrow, claimed: Reading) -> bool:
        """Makes the pair outlive this process; says whether it certainly would.

        `claimed`: the row as the claim left it.
        """
        self._stand_in(escrow, claimed)
        is_acknowledged = await self._escrows.put(escrow)
        self._observer.observe(
            EscrowWritten(
                tenant=escrow.tenant,
                number=escrow.attempt.number,
                is_acknowledged=is_acknowledged,
            )
        )
        return is_acknowledged

    def remember(self, stored: Grant) -> None:
        """Takes note of a row that PostgreSQL has taken."""
        self._recall.keep(stored)

    async def discard(self, escrow: Escrow) -> None:
        """Deletes the copy of a pair that is stored, or that nobody needs any more."""
        await self._escrows.drop(escrow)

    def _stand_in(self, escrow: Escrow, claimed: Reading) -> None:
        stored = adopt(escrow, claimed.grant, now=claimed.latest_now())
        if isinstance(stored, Changed):
            snapshot = replace(claimed.snapshot, grant=stored.after)
            self._memory.keep_unstored(replace(claimed, snapshot=snapshot))


class KeptSafe:
    """The escrow of one settlement: written once, deleted only if it may be there."""

    def __init__(self, safekeeping: Safekeeping, escrow: Escrow | None, hold: Hold) -> None:
        """`hold`: what the pair holds up shutdown with. `escrow`: None where there is no pair."""
        self._safekeeping = safekeeping
        self._escrow = escrow
        self._hold = hold
        self._may_be_there = False
        self._is_there = False

    async def keep(self, claimed: Reading) -> None:
        """Writes it, unless it is there; then the pair holds up shutdown no longer."""
        if self._escrow is None or self._is_there:
            return
        self._may_be_there = True
        self._is_there = await self._safekeeping.keep(self._escrow, claimed)
        if self._is_there:
            self._hold.release()

    async def discard(self) -> None:
        """Deletes it."""
        if self._escrow is not None and self._may_be_there:
            await self._safekeeping.discard(self._escrow)
