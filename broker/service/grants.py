"""GetGrant, ListGrants and RevokeGrant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from broker.domain.consent_writes import destroy_pair, revoke
from broker.domain.errors import (
    FieldViolation,
    InvalidRequest,
    KeyUnavailable,
    ProviderUnavailable,
    ReauthRequired,
    RecordUnreadable,
    TenantNotFound,
)
from broker.domain.freshness import Freshness, access_token_of, freshness
from broker.domain.grant import Grant, GrantState, UnreadablePair
from broker.domain.secret import AccessToken
from broker.ports import GrantStore, ListQuery, Provider
from broker.service.memory import Memory
from broker.service.messages import RevokeGrant, ServedToken
from broker.service.news import News, moved_to
from broker.service.rows import Act, Proposal, Reading, Rows

_SERVING: Final = frozenset({GrantState.ACTIVE, GrantState.HELD})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Shows and ends grants."""

    store: GrantStore
    rows: Rows
    memory: Memory
    news: News
    provider: Provider
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
            ProviderUnavailable: Pleo has not confirmed; the grant serves no tokens any more, unless
            it could not even be asked. BrokerError: as GetAccessToken; nothing was changed.
        """
        self._check(request)
        reading = await self._read(request.tenant)
        deletes = request.at_provider and await self._is_worth_deleting(reading.grant)
        reading = await self._revoke(request, reading, keeps_pair=deletes)
        if reading.grant.pair is None:
            return reading.grant
        if request.at_provider:
            await self.provider.delete_installation(_living(reading))
        return await self._destroy(request, reading)

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
            await self.news.announce(moved_to(written.reading))
        return written.reading

    async def _destroy(self, request: RevokeGrant, reading: Reading) -> Grant:
        def propose(current: Reading) -> Proposal:
            return Proposal(decision=destroy_pair(current.grant))

        return (await self.rows.write(reading, propose, _act(request))).reading.grant


def _act(request: RevokeGrant) -> Act:
    return Act(
        actor=request.caller,
        call="GrantService/RevokeGrant",
        reason=request.reason,
        is_administrative=True,
    )


def _living(reading: Reading) -> AccessToken:
    grant, access_token = reading.grant, access_token_of(reading.grant)
    if isinstance(grant.pair, UnreadablePair):
        raise _unreadable(grant.tenant, grant.pair)
    if access_token is None or freshness(grant, reading.latest_now()) is Freshness.EXPIRED:
        raise ProviderUnavailable(
            "no living access token is left to delete the installation with: remove it in Pleo, "
            "and revoke without the step at Pleo to destroy the tokens",
            tenant=grant.tenant,
            metadata={"code": "access_token_expired"},
        )
    return access_token


def _unreadable(tenant: str, pair: UnreadablePair) -> KeyUnavailable | RecordUnreadable:
    if pair.is_key_missing:
        return KeyUnavailable("this replica lacks the key of the grant's tokens", tenant=tenant)
    return RecordUnreadable("the grant's tokens do not open", tenant=tenant)
