"""Planned work as one process finds it: what is due, and turns in which nothing is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker.domain.grant import AttemptPhase, Doubt
from broker.domain.renewal import Planned, due_since
from broker.ports import Due
from broker.service.renewing import TURN_SECONDS
from simulation.process import Process
from simulation.quiet import Quiet
from simulation.store_ports import ask
from support.consent_service import KEEPALIVE
from support.fake_renewals import FakeRenewals
from support.fake_world import FakeWorld

_IN_THE_WAY: Final = frozenset({AttemptPhase.CLAIMED, AttemptPhase.ARMED})


@dataclass(frozen=True, slots=True, kw_only=True)
class WayToRenewals:
    """Upholds `Renewals`. Whoever asks for what is in use asks for what is idle next."""

    process: Process
    inner: FakeRenewals
    world: FakeWorld
    quiet: Quiet

    async def take(self, which: Planned, *, limit: int) -> Sequence[Due]:
        if which is Planned.IN_USE and not self.process.expects("take<", "take>"):
            await self._until_due()
        return await ask(self.process, "take", lambda: self.inner.take(which, limit=limit))

    async def _until_due(self) -> None:
        """Passes over the turns before the next that something may be due at."""
        now = self.world.now()
        nearest = min(self._times(), default=now + KEEPALIVE)
        if nearest > now:
            left = (nearest - now).total_seconds()
            await self.quiet.pass_turns(TURN_SECONDS, at_most=left)

    def _times(self) -> Iterator[datetime]:
        """Gives for each grant a time before which it is not due, whatever else is in the way."""
        now = self.world.now()
        for tenant, row in self.world.rows.items():
            grant, attempt = row.grant, row.grant.attempt
            if grant.doubt is Doubt.ABANDONED or (attempt and attempt.phase in _IN_THE_WAY):
                continue  # until it is written again
            since = (due_since(grant, each, keepalive=KEEPALIVE) for each in Planned)
            due_at = min((each for each in since if each is not None), default=None)
            if due_at is not None:
                taken_until = self.world.renewals_taken.get(tenant, now)
                waits_until = attempt.deadline if attempt else now
                yield max(due_at, taken_until, waits_until, grant.failures.next_try_at or now)
