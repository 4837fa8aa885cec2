"""One refresh of one grant: claim, quarantine where needed, present once, settle.

Whoever calls this runs in a task of the app, which nobody cancels: a refresh token that was sent is
followed to its answer (law 8, RFC 9700 §4.14).
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from broker.domain.answers import Refused
from broker.domain.facts import ReauthBecameRequired
from broker.domain.grant import AttemptPhase, GrantState
from broker.domain.requests import RefreshRequest
from broker.ports import Observer, Presentation
from broker.service.arming import Arming
from broker.service.claim import Claims
from broker.service.fleet import Fleet
from broker.service.rows import Reading
from broker.service.settle import Claimed, Settler
from broker.service.turnstile import Turnstile
from broker.service.weighing import Weighing
from broker.service.wire import Wire, presented_token


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresher:
    """Refreshes grants; all parts are the process's own, one each."""

    claims: Claims
    arming: Arming
    wire: Wire
    settler: Settler
    fleet: Fleet
    weighing: Weighing
    turnstile: Turnstile
    observer: Observer

    async def refresh(
        self, reading: Reading, overdue: asyncio.Future[None], *, has_turn: bool = False
    ) -> Reading:
        """Makes one attempt and returns the row after it, whatever came of it.

        `has_turn`: whoever asks has a place at the turnstile already.

        Raises:
            StoreUnavailable: PostgreSQL was away before anything was sent, or took no settlement
            of an attempt that brought no tokens.
            ProviderRejectedClient, ProviderUnavailable: the breaker is open; nothing was claimed.
        """
        # Asked before the queue too: it would only grow while the breaker is open.
        self.fleet.check(reading.grant.tenant)
        sent = await self._send(reading, overdue, has_turn=has_turn)
        return sent if isinstance(sent, Reading) else await self._settle(*sent)

    async def _send(
        self, reading: Reading, overdue: asyncio.Future[None], *, has_turn: bool
    ) -> tuple[Claimed, Presentation] | Reading:
        """Presents once, and returns what came of it; the row where it was not to be."""
        async with self._turn(has_turn=has_turn):
            is_probe = await self.fleet.admit(reading.grant.tenant)
            claimed = await self.claims.claim_refresh(reading)
            if isinstance(claimed, Reading):
                return await self._unprobed(claimed, is_probe=is_probe)
            if claimed.attempt.phase is AttemptPhase.ARMED:
                return claimed, await self._present(claimed, overdue)
        # A quarantine keeps no place: it would be in the way of others' grants.
        armed = await self.arming.armed(claimed)
        if isinstance(armed, Reading):
            # Of a breaker that has opened since it was no probe.
            is_probe = is_probe and not self.fleet.is_overtaken(claimed)
            return await self._unprobed(armed, is_probe=is_probe)
        async with self._turn(has_turn=has_turn):
            if self.fleet.is_overtaken(armed):
                return await self._let_go(armed)
            return armed, await self._present(armed, overdue)

    def _turn(self, *, has_turn: bool) -> AbstractAsyncContextManager[None]:
        return nullcontext() if has_turn else self.turnstile.turn()

    async def _unprobed(self, reading: Reading, *, is_probe: bool) -> Reading:
        """Presents nothing, and so lets another be the probe."""
        if is_probe:
            await self.fleet.give_back()
        return reading

    async def _let_go(self, claimed: Claimed) -> Reading:
        """Presents nothing after a quarantine in which the breaker has opened."""
        after = await self.arming.let_go(claimed)
        self.fleet.check(claimed.reading.grant.tenant)
        return after

    async def _present(self, claimed: Claimed, overdue: asyncio.Future[None]) -> Presentation:
        request = RefreshRequest(refresh_token=presented_token(claimed.reading.grant))
        return await self.wire.present(claimed, request, overdue=overdue)

    async def _settle(self, claimed: Claimed, presentation: Presentation) -> Reading:
        """Settles outside the turnstile: a pair that PostgreSQL does not take keeps no place."""
        answer = presentation.answer
        if isinstance(answer, Refused):
            # A refusal that a shutdown left behind would be presented again, by the next replica.
            with self.settler.holding():
                await self.weighing.weigh_refusal(claimed, answer)
        presented = presented_token(claimed.reading.grant)
        ending = self.settler.refresh_ending(claimed, presentation, presented)
        written = await self.settler.settle(claimed, ending)
        if isinstance(answer, Refused):
            # Again: of refusals that come together none has seen the others' lines.
            await self.weighing.weigh_refusal(claimed, answer)
        if written.not_allowed is None:
            self._tell(written.reading)
        await self.weighing.note(claimed, answer)
        return written.reading

    def _tell(self, reading: Reading) -> None:
        grant = reading.grant
        if grant.state is GrantState.REAUTH_REQUIRED and grant.reauth is not None:
            self.observer.observe(
                ReauthBecameRequired(
                    tenant=grant.tenant,
                    cause=grant.reauth.cause,
                    provider_error=grant.reauth.provider_error,
                )
            )
