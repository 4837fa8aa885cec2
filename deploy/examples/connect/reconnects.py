"""Who must connect again, learnt by polling ListGrants. No webhook of Pleo's announces it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import grpc.aio

from broker.v1 import grant_service_pb2_grpc
from broker.v1.grant_service_pb2 import Grant, ListGrantsRequest

POLL_SECONDS: Final = 5.0
"""How long a dead grant may go unnoticed here. A poll costs the broker one indexed query."""

_OVERLAP: Final = timedelta(minutes=1)
"""Changes are not seen in the order of their times: each poll looks this far back (ListGrants)."""

_DEADLINE_SECONDS: Final = 10.0
"""The broker asks PostgreSQL and nobody else."""


@dataclass(slots=True, kw_only=True)
class Reconnects:
    """The tenants that must connect again, as far as the last poll knows."""

    grants: grant_service_pb2_grpc.GrantServiceAsyncStub
    waiting: dict[str, Grant] = field(default_factory=dict)
    is_current: bool = False
    _newest: datetime | None = None

    async def poll(self) -> None:
        """Takes in what has changed since the last time, all pages of it.

        Raises:
            grpc.aio.AioRpcError: the broker did not say; what was known stays.
        """
        request, newest = ListGrantsRequest(page_size=1000), self._newest
        if newest is not None:
            request.updated_after_time.FromDatetime(newest - _OVERLAP)
        while True:
            page = await self.grants.ListGrants(request, timeout=_DEADLINE_SECONDS)
            for grant in page.grants:
                self.take_in(grant)
                changed = grant.update_time.ToDatetime()
                newest = changed if newest is None else max(newest, changed)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        # Only now: a list that broke off is asked for again from where it began.
        self._newest = newest

    def take_in(self, grant: Grant) -> None:
        """Notes where a grant stands now."""
        if grant.state == Grant.STATE_REAUTH_REQUIRED:
            self.waiting[grant.tenant] = grant
        else:
            self.waiting.pop(grant.tenant, None)

    async def keep_polling(self) -> None:
        """Polls until it is cancelled. A broker that is away for a while is no reason to stop."""
        while True:
            try:
                await self.poll()
                self.is_current = True
            except grpc.aio.AioRpcError:
                self.is_current = False  # which the page says
            await asyncio.sleep(POLL_SECONDS)
