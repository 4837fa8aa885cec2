"""GetGrant, ListGrants and RevokeGrant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from broker.domain.consent_writes import destroy_pair, revoke
from broker.domain.errors import (
    FieldViolation,
    InvalidRequest,
    ReauthRequired,
    TenantNotFound,
)
from broker.domain.facts import GrantRevoked
from broker.domain.grant import Attempt, Grant, GrantState
from broker.ports import GrantStore, ListQuery, Observer
from broker.service.deleting import Deleting
from broker.service.memory import Memory
from broker.service.messages import RevokeGrant, ServedToken
from broker.service.news import News, moved_to
from broker.service.recall import Recall
from broker.service.rows import Act, Proposal, Reading, Rows

_SERVING: Final = frozenset({GrantState.ACTIVE, GrantState.HELD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Shows and ends grants."""

    store: GrantStore
    rows: Rows
    memory: Memory
    news: News
    recall: Recall
    deleting: Deleting
    observer: Observer
    obtain: Callable[[str], Awaitable[ServedToken]]
    """Returns a living token of a tenant, as callers get it."""

    may_delete_at_provider: bool

    async def get(self, tenant: str) -> Grant:
        """Returns a grant, also a revoked one.

        Raises:
            TenantNotFound: there never was one. StoreUnavailable.
        """
        return (await self._read(tenant)).grant

    async def list(self, query: ListQuery) -> Sequence[Grant]:
        """Returns a page, ordered by tenant.

        Raises:
            StoreUnavailable: PostgreSQL cannot be asked.
        """
        return await self.store.list_grants(query)

    async def revoke(self, request: RevokeGrant) -> Grant:
        """Ends a grant and returns it; one that is revoked already goes on where it stopped.

        The step at Pleo needs a living access token, which a revoked grant can no longer get: one
        is fetched first where there is none.

        Raises:
            TenantNotFound: there never was a grant.
            InvalidRequest: the step at Pleo is asked for, and the setting forbids it.
            ProviderUnavailable, RefreshOutcomeUnknown: Pleo has not confirmed, or was not asked
            because a consent is under way; the grant serves no tokens any more, unless no living
            one could be fetched. BrokerError: as GetAccessToken; nothing was changed.
        """
        self._check(request)
        reading = await self._read(request.tenant)
        deletes = request.at_provider and await self._is_worth_deleting(reading.grant)
        reading = await self._revoke(request, reading, keeps_pair=deletes)
        if reading.grant.pair is None:
            return reading.grant
        mine = await self.deleting.delete(reading) if request.at_provider else None
        return await self._destroy(request, reading, mine)

    def _check(self, request: RevokeGrant) -> None:
        if request.at_provider and not self.may_delete_at_provider:
            what = "must not be set: BROKER_ALLOW_PROVIDER_REVOKE is off"
            violation = FieldViolation(field="revoke_at_provider", description=what)
            raise InvalidRequest([violation], tenant=request.tenant)

    async def _read(self, tenant: str) -> Reading:
        reading = await self.rows.read(tenant)
        if reading.grant.state is GrantState.UNCONNECTED:
            raise TenantNotFound(tenant=tenant)
        return reading

    async def _is_worth_deleting(self, grant: Grant) -> bool:
        if grant.state not in _SERVING:
            return False
        try:
            await self.obtain(grant.tenant)
        except ReauthRequired:
            return False  # Pleo has ended it already
        return True

    async def _revoke(self, request: RevokeGrant, reading: Reading, *, keeps_pair: bool) -> Reading:
        def propose(current: Reading) -> Proposal:
            return Proposal(decision=revoke(current.grant, keeps_pair=keeps_pair, now=current.now))

        written = await self.rows.write(reading, propose, _act(request))
        self.memory.keep(written.reading)
        if written.not_allowed is None:
            self.recall.keep(written.reading.grant)
            self._tell(request, written.reading.grant, at_provider=keeps_pair)
            await self.news.announce(moved_to(written.reading))
        return written.reading

    def _tell(self, request: RevokeGrant, grant: Grant, *, at_provider: bool) -> None:
        self.observer.observe(
            GrantRevoked(
                tenant=grant.tenant,
                generation=grant.generation,
                by=request.caller,
                at_provider=at_provider,
            )
        )

    async def _destroy(self, request: RevokeGrant, reading: Reading, mine: Attempt | None) -> Grant:
        def propose(current: Reading) -> Proposal:
            return Proposal(decision=destroy_pair(current.grant, mine))

        # That Pleo has deleted the installation is an act of its own, as its rule is.
        act = _act(request, what="" if mine is None else "#provider")
        written = await self.rows.write(reading, propose, act)
        if written.not_allowed is None:
            self.recall.keep(written.reading.grant)
        return written.reading.grant


def _act(request: RevokeGrant, *, what: str = "") -> Act:
    return Act(
        actor=request.caller,
        call=f"GrantService/RevokeGrant{what}",
        reason=request.reason,
        is_administrative=True,
    )
