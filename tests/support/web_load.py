"""A web tier at work while brokers are replaced: customers consent, again and again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc.aio

from broker.v1.grant_service_pb2 import GetGrantRequest, ListGrantsRequest
from support.fleet import PATIENCE_SECONDS, Fleet
from support.onboarding import Customer, complete_over, visit_over

if TYPE_CHECKING:
    from broker.v1.grant_service_pb2_grpc import GrantServiceAsyncStub

_BETWEEN_SECONDS: Final = 0.5
"""Two consents a second, each of which costs this process as much as some dozens of tokens: the
load, and no wait for anything."""


@dataclass(slots=True, kw_only=True)
class WebTier:
    """Calls GrantService over one channel, for a customer of its own."""

    grants: GrantServiceAsyncStub
    brokers: Fleet
    customer: Customer
    consents: int = 0
    failed: list[str] = field(default_factory=list)

    async def work(self) -> None:
        """Has the customer consent, and looks at what came of it, until it is cancelled."""
        while True:
            try:
                await self._connect()
                self.consents += 1
            except grpc.aio.AioRpcError as error:
                self.failed.append(f"web: {error.code()} {error.details()}")
            await asyncio.sleep(_BETWEEN_SECONDS)

    async def _connect(self) -> None:
        returned = await visit_over(self.grants, self.brokers, self.customer)
        made = await complete_over(self.grants, returned)
        tenant = self.customer.tenant
        found = await self.grants.GetGrant(GetGrantRequest(tenant=tenant), timeout=PATIENCE_SECONDS)
        await self.grants.ListGrants(ListGrantsRequest(), timeout=PATIENCE_SECONDS)
        if found.grant.generation != made.generation:
            self.failed.append(f"web: {found.grant.generation} is not {made.generation}")
