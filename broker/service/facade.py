"""The whole service, as its edge knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.domain.grant import Grant
from broker.domain.guard import Release
from broker.domain.trouble import Trouble
from broker.ports import ListQuery
from broker.service.completing import Completing
from broker.service.disclosures import Disclosures
from broker.service.explaining import Explaining, Explanation
from broker.service.grants import Grants
from broker.service.guard import GuardKeeper, Released
from broker.service.importing import Importing
from broker.service.messages import (
    CompleteAuthorization,
    ImportGrant,
    RefreshGrant,
    RevokeGrant,
    ServedToken,
    StartAuthorization,
    StartedAuthorization,
)
from broker.service.obtain import Obtain
from broker.service.rotating import Rotating
from broker.service.starting import Starting
from broker.service.usage import Usage
from broker.service.waiting import in_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Answers every call of the API. Each method raises as the part that it hands on to."""

    obtain: Obtain
    usage: Usage
    disclosures: Disclosures
    starting: Starting
    completing: Completing
    importing: Importing
    grants: Grants
    guard: GuardKeeper
    rotating: Rotating
    explaining: Explaining

    async def get_access_token(
        self, tenant: str, *, rejected_generation: int | None, budget: timedelta
    ) -> ServedToken:
        """Returns a living token, and notes that it was asked for."""
        served = await self.obtain.get_access_token(
            tenant, rejected_generation=rejected_generation, budget=budget
        )
        self.usage.note(tenant)
        return served

    def note_handed_out(self, tenant: str, *, caller: str, generation: int) -> None:
        """Notes that a caller is given a token: right before it is, and whichever call gives it."""
        self.disclosures.note(tenant, caller=caller, generation=generation)

    async def start_authorization(self, request: StartAuthorization) -> StartedAuthorization:
        """Begins a consent."""
        return await self.starting.start(request)

    async def complete_authorization(
        self, request: CompleteAuthorization, *, budget: timedelta | None = None
    ) -> Grant:
        """Completes a consent."""
        return await in_time(self.completing.complete(request), request.tenant, budget)

    async def import_grant(self, request: ImportGrant, *, budget: timedelta | None = None) -> Grant:
        """Takes over a refresh token."""
        return await in_time(self.importing.import_grant(request), request.tenant, budget)

    async def get_grant(self, tenant: str) -> Grant:
        """Returns a grant."""
        return await self.grants.get(tenant)

    async def list_grants(self, query: ListQuery) -> Sequence[Grant]:
        """Returns a page of grants."""
        return await self.grants.list(query)

    async def revoke_grant(self, request: RevokeGrant) -> Grant:
        """Ends a grant."""
        return await self.grants.revoke(request)

    async def refresh_grant(self, request: RefreshGrant, *, budget: timedelta) -> Grant:
        """Rotates a grant's tokens, due or not."""
        return await self.rotating.rotate(request, budget=budget)

    async def release_guard(self, release: Release, *, by: str, reason: str) -> Released:
        """Ends the fleet guard's hold."""
        return await self.guard.release(release, by=by, reason=reason)

    async def explain_grant(
        self, tenant: str, *, limit: int, troubles: tuple[Trouble, ...] = ()
    ) -> Explanation:
        """Tells all that is known about a grant."""
        return await self.explaining.explain(tenant, limit=limit, troubles=troubles)
