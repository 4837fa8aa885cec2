"""A fake of `Renewals`. It passes the conformance suite of the real one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.domain.renewal import TAKEN_FOR, Planned, due_since, may_be_renewed
from broker.ports import Due
from support.fake_world import FakeWorld


class FakeRenewals:
    """Upholds `Renewals`."""

    def __init__(self, world: FakeWorld, *, keepalive: timedelta) -> None:
        self._world = world
        self._keepalive = keepalive

    async def take(self, which: Planned, *, limit: int) -> Sequence[Due]:
        await self._world.arrive("take renewals")
        now = self._world.now()
        due = sorted(self._due(which, now), key=lambda each: (-each.delay, each.tenant))[:limit]
        for each in due:
            self._world.renewals_taken[each.tenant] = now + TAKEN_FOR
        await self._world.depart("take renewals")
        return due

    def _due(self, which: Planned, now: datetime) -> list[Due]:
        free = [
            row.grant
            for tenant, row in self._world.rows.items()
            if may_be_renewed(row.grant, now)
            if self._world.renewals_taken.get(tenant, now) <= now
        ]
        since = {grant.tenant: due_since(grant, which, keepalive=self._keepalive) for grant in free}
        return [
            Due(tenant=tenant, delay=now - then)
            for tenant, then in since.items()
            if then is not None and then <= now
        ]
