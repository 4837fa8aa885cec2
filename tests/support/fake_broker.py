"""A service from memory, for tests of the edge: it does as told, and remembers what it was asked.

`FakeBroker.failure` is raised by every call; `FakeBroker.hold()` makes calls wait. What it answers
is what its callers put into `served`, `released`, `rewraps`, `grants` and `report`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypedDict, Unpack

from broker.domain.errors import BrokerError, TenantNotFound
from broker.domain.explanation import Known, hold_of, planned
from broker.domain.facts import LeaseStanding, Source
from broker.domain.fleet_report import FleetReport
from broker.domain.grant import Grant, GrantState
from broker.domain.guard import Release
from broker.domain.secret import AccessToken, Secret
from broker.domain.story import story
from broker.domain.trouble import Trouble
from broker.ports import LeaseSeen, ListQuery
from broker.service.explaining import Explanation
from broker.service.guard import Released
from broker.service.messages import (
    CompleteAuthorization,
    ImportGrant,
    RefreshGrant,
    RevokeGrant,
    ServedToken,
    StartAuthorization,
    StartedAuthorization,
)
from broker.service.rewrapping import RewrapProgress
from broker.service.watching import Watching
from support.grants import THE_NOW, some_grant
from support.reports import some_report

_SERVED: Final = ServedToken(
    access_token=AccessToken(Secret("fake-access-7")),
    token_type="Bearer",
    expires_at=THE_NOW + timedelta(minutes=10),
    expires_in=timedelta(minutes=10),
    reuse_until=THE_NOW + timedelta(minutes=8),
    reuse_for=timedelta(minutes=8, microseconds=1),
    scopes=("accounts:read", "export-items:read"),
    generation=7,
    source=Source.MEMORY,
    is_degraded=False,
)


class ServedChanges(TypedDict, total=False):
    """What may be different about a token."""

    expires_in: timedelta
    reuse_for: timedelta
    scopes: tuple[str, ...]
    generation: int
    is_degraded: bool


def some_served_token(**changes: Unpack[ServedChanges]) -> ServedToken:
    """Returns a token in mid-life."""
    return replace(_SERVED, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedForToken:
    """What `get_access_token` was asked."""

    tenant: str
    rejected_generation: int | None
    budget: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedForRelease:
    """What `release_guard` was asked."""

    release: Release
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedForRewrap:
    """What `rewrap_keys` was asked."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedForRotation:
    """What `refresh_grant` was asked."""

    request: RefreshGrant
    budget: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedForStory:
    """What `explain_grant` was asked."""

    tenant: str
    limit: int


class FakeBroker:
    """All that the edge asks of the service."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.handed_out: list[tuple[str, str, int]] = []
        self.budgets: list[timedelta | None] = []
        """Of those who made grants."""

        self.failure: Exception | None = None
        self.failures: dict[str, BrokerError] = {}
        """Of single tenants, for who asks for a token."""

        self.served = some_served_token()
        self.released = Released(released=5, remaining=2)
        self.rewraps = [RewrapProgress(key_id=7, total=3), RewrapProgress(key_id=7, total=3)]
        self.grants = {"acme": some_grant()}
        self.report = some_report()
        self.troubled: tuple[Trouble, ...] = ()
        self.known = Known(grant=some_grant(), now=THE_NOW)
        self.lease = LeaseSeen(standing=LeaseStanding.FREE)
        self.waiting = asyncio.Event()
        self._may_go = asyncio.Event()
        self._may_go.set()
        self.watching = Watching(self._look)

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Makes calls wait as long as the block runs; `waiting` is set once one does."""
        self._may_go.clear()
        yield
        self._may_go.set()

    async def get_access_token(
        self, tenant: str, *, rejected_generation: int | None, budget: timedelta
    ) -> ServedToken:
        """Answers what is in `served`."""
        asked = AskedForToken(tenant=tenant, rejected_generation=rejected_generation, budget=budget)
        await self._ask(asked)
        if tenant in self.failures:
            raise self.failures[tenant]
        return self.served

    async def _look(self, tenant: str) -> ServedToken:
        return await self.get_access_token(
            tenant, rejected_generation=None, budget=timedelta(seconds=3)
        )

    def note_handed_out(self, tenant: str, *, caller: str, generation: int) -> None:
        """Remembers it."""
        self.handed_out.append((tenant, caller, generation))

    async def start_authorization(self, request: StartAuthorization) -> StartedAuthorization:
        """Answers with an address of nobody's."""
        await self._ask(request)
        return StartedAuthorization(
            authorization_uri="https://pleo.example/authorize?state=fake-state",
            state="fake-state",
            expires_at=THE_NOW + timedelta(minutes=10),
        )

    async def complete_authorization(
        self, request: CompleteAuthorization, *, budget: timedelta | None
    ) -> Grant:
        """Connects the tenant."""
        self.budgets.append(budget)
        return await self._connect(request.tenant, request)

    async def import_grant(self, request: ImportGrant, *, budget: timedelta | None) -> Grant:
        """Connects the tenant."""
        self.budgets.append(budget)
        return await self._connect(request.tenant, request)

    async def get_grant(self, tenant: str) -> Grant:
        """Looks the grant up."""
        await self._ask(tenant)
        if tenant not in self.grants:
            raise TenantNotFound(tenant=tenant)
        return self.grants[tenant]

    async def list_grants(self, query: ListQuery) -> Sequence[Grant]:
        """Lists as the store does, times left aside."""
        await self._ask(query)
        found = [
            self.grants[tenant]
            for tenant in sorted(self.grants)
            if tenant > query.after_tenant and tenant in query.tenants
            if not query.states or self.grants[tenant].state in query.states
        ]
        return found[: query.limit]

    async def revoke_grant(self, request: RevokeGrant) -> Grant:
        """Leaves a tombstone."""
        grant = await self.get_grant(request.tenant)
        await self._ask(request)
        self.grants[request.tenant] = replace(grant, state=GrantState.REVOKED)
        return self.grants[request.tenant]

    async def release_guard(self, release: Release, *, by: str, reason: str) -> Released:
        """Answers what is in `released`."""
        await self._ask(AskedForRelease(release=release, by=by, reason=reason))
        return self.released

    async def count_keys(self) -> RewrapProgress:
        """Answers the first of `rewraps`."""
        await self._ask("keys counted")
        return self.rewraps[0]

    async def rewrap_keys(self, *, by: str, reason: str) -> AsyncGenerator[RewrapProgress, None]:
        """Tells what is in `rewraps`; may be held before the last."""
        self.asked.append(AskedForRewrap(by=by, reason=reason))
        for progress in self.rewraps[:-1]:
            yield progress
        await self._ask("the last")
        yield self.rewraps[-1]

    async def refresh_grant(self, request: RefreshGrant, *, budget: timedelta) -> Grant:
        """Lets the grant have its next generation."""
        grant = await self.get_grant(request.tenant)
        await self._ask(AskedForRotation(request=request, budget=budget))
        self.grants[request.tenant] = replace(grant, generation=grant.generation + 1)
        return self.grants[request.tenant]

    async def fleet_report(self) -> FleetReport:
        """Answers what is in `report`."""
        await self._ask("the fleet")
        return self.report

    def troubles(self) -> tuple[Trouble, ...]:
        """Answers what is in `troubled`."""
        return self.troubled

    async def explain_grant(
        self, tenant: str, *, limit: int, troubles: tuple[Trouble, ...]
    ) -> Explanation:
        """Explains the grant by itself, without any record."""
        grant = await self.get_grant(tenant)
        await self._ask(AskedForStory(tenant=tenant, limit=limit))
        known = replace(self.known, grant=grant, troubles=troubles)
        return Explanation(
            known=known,
            lease=self.lease,
            hold=hold_of(known),
            planned=planned(known),
            story=story(known),
        )

    async def _connect(self, tenant: str, request: object) -> Grant:
        await self._ask(request)
        return self.grants.setdefault(tenant, some_grant(tenant=tenant, generation=1))

    async def _ask(self, asked: object) -> None:
        self.asked.append(asked)
        if not self._may_go.is_set():
            self.waiting.set()
            await self._may_go.wait()
        if self.failure is not None:
            raise self.failure
