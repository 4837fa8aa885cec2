"""One refresh of one grant: claim, quarantine where needed, present once, settle.

Whoever calls this runs in a task of the app, which nobody cancels: a refresh token that was sent is
followed to its answer (law 8, RFC 9700 §4.14).
"""

from __future__ import annotations

import asyncio

from broker.domain.facts import ReauthBecameRequired
from broker.domain.grant import GrantState
from broker.domain.requests import RefreshRequest
from broker.ports import Observer
from broker.service.claim import Claims
from broker.service.rows import Reading
from broker.service.settle import Claimed, Settler, presented_token
from broker.service.wire import Wire


class Refresher:
    """Refreshes grants."""

    def __init__(self, claims: Claims, wire: Wire, settler: Settler, observer: Observer) -> None:
        """All parts are the process's own, one each."""
        self._claims = claims
        self._wire = wire
        self._settler = settler
        self._observer = observer

    async def refresh(self, reading: Reading, overdue: asyncio.Future[None]) -> Reading:
        """Makes one attempt and returns the row after it, whatever came of it.

        Raises:
            StoreUnavailable: PostgreSQL was away before anything was sent, or took no settlement
            of an attempt that brought no tokens.
        """
        claimed = await self._claims.claim_refresh(reading)
        if isinstance(claimed, Reading):
            return claimed
        armed = await self._claims.armed(claimed)
        if isinstance(armed, Reading):
            return armed
        return await self._present(armed, overdue)

    async def _present(self, claimed: Claimed, overdue: asyncio.Future[None]) -> Reading:
        presented = presented_token(claimed.reading.grant)
        request = RefreshRequest(refresh_token=presented)
        presentation = await self._wire.present(claimed, request, overdue=overdue)
        ending = self._settler.refresh_ending(claimed, presentation, presented)
        written = await self._settler.settle(claimed, ending)
        if written.not_allowed is None:
            self._tell(written.reading)
        return written.reading

    def _tell(self, reading: Reading) -> None:
        grant = reading.grant
        if grant.state is GrantState.REAUTH_REQUIRED and grant.reauth is not None:
            self._observer.observe(
                ReauthBecameRequired(
                    tenant=grant.tenant,
                    cause=grant.reauth.cause,
                    provider_error=grant.reauth.provider_error,
                )
            )
