"""Redis and Pleo as one process reaches them: the fakes, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from broker.domain.escrow import Escrow
from broker.domain.facts import LeaseOutcome
from broker.domain.requests import AuthorizationRequest, TokenRequest
from broker.domain.secret import AccessToken
from broker.ports import (
    GrantMoved,
    Introspection,
    LeaseSeen,
    Presentation,
    Resubscribed,
    WireWindow,
)
from broker.service.adoption import SWEEP_SECONDS
from simulation.laws import Laws
from simulation.process import Process
from simulation.quiet import Quiet
from support.fake_escrows import FakeEscrows
from support.fake_lease import FakeAnnouncements, FakeLeases, FakeRedis
from support.fake_provider import FakeProvider
from support.fake_world import FakeWorld


@dataclass(frozen=True, slots=True, kw_only=True)
class WayToEscrows:
    """Upholds `Escrows`. Whoever reads one has the pair in hand."""

    process: Process
    inner: FakeEscrows
    world: FakeWorld
    redis: FakeRedis
    quiet: Quiet
    laws: Laws

    def _is_heard(self) -> bool:
        return self.process.weather.is_redis_heard(self.process.slot, self.process.chance)

    async def put(self, escrow: Escrow) -> bool:
        await self.process.step("put<")
        # What cannot be sealed cannot be kept.
        can_be_put = self.world.seals and self._is_heard()
        is_put = can_be_put and await self.inner.put(escrow)
        self.quiet.stir()
        if is_put:
            self.laws.keeping.note_escrowed(escrow.issued.refresh_token.reveal())
        await self.process.step("put>")
        return is_put and self._is_heard()

    async def find(self, tenant: str) -> Sequence[Escrow] | None:
        await self.process.step("find<", is_brief=True)
        return await self._read(await self.inner.find(tenant), "find>")

    async def everything(self) -> Sequence[Escrow] | None:
        if not self._is_there_any() and not self.process.expects("sweep<", "sweep>"):
            await self.quiet.pass_turns(SWEEP_SECONDS)
        await self.process.step("sweep<", is_brief=True)
        return await self._read(await self.inner.everything(), "sweep>")

    def _is_there_any(self) -> bool:
        """Whether a sweep may find, or has found, anything; or is told that nobody knows."""
        service, redis = self.process.service, self.redis
        is_told = redis.is_reachable and redis.is_answering
        return not is_told or bool(redis.escrows) or service is None or len(service.adoption) > 0

    async def _read(self, found: Sequence[Escrow] | None, point: str) -> Sequence[Escrow] | None:
        await self.process.step(point)
        if not self._is_heard():
            return None
        for escrow in found or ():
            refresh_token = escrow.issued.refresh_token.reveal()
            self.process.hands[(escrow.tenant, escrow.attempt.number)] = refresh_token
            if point == "find>":
                self.process.known.add(refresh_token)
        return found

    async def drop(self, escrow: Escrow) -> None:
        await self.process.step("drop<")
        if self._is_heard():
            await self.inner.drop(escrow)
        await self.process.step("drop>")


@dataclass(frozen=True, slots=True, kw_only=True)
class WayToLeases:
    """Upholds `Leases`. Of a killed process nobody releases the lease."""

    process: Process
    inner: FakeLeases

    @asynccontextmanager
    async def hold(self, tenant: str) -> AsyncIterator[LeaseOutcome]:
        await self.process.step("lease<")
        if not self.process.weather.is_redis_heard(self.process.slot, self.process.chance):
            yield LeaseOutcome.UNREACHABLE
            return
        lease = self.inner.hold(tenant)
        self.process.abandoned.append(lease)
        outcome = await lease.__aenter__()
        try:
            yield outcome
        finally:
            if not self.process.is_dead:
                await lease.__aexit__(None, None, None)
                self.process.abandoned.remove(lease)

    async def look(self, tenant: str) -> LeaseSeen:
        return await self.inner.look(tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class WayToAnnouncements:
    """Upholds `Announcements`."""

    process: Process
    inner: FakeAnnouncements

    def _is_heard(self) -> bool:
        return self.process.weather.is_redis_heard(self.process.slot, self.process.chance)

    async def announce(self, moved: GrantMoved) -> None:
        await self.process.step("announce<")
        if self._is_heard():
            await self.inner.announce(moved)

    async def listen(self) -> AsyncGenerator[GrantMoved | Resubscribed, None]:
        async for news in self.inner.listen():
            await self.process.step("news>")
            if self._is_heard():
                yield news


@dataclass(frozen=True, slots=True, kw_only=True)
class WayToPleo:
    """Upholds `Provider`; every presentation is judged."""

    process: Process
    inner: FakeProvider
    laws: Laws

    def authorization_uri(self, request: AuthorizationRequest) -> str:
        return self.inner.authorization_uri(request)

    async def present(self, request: TokenRequest, window: WireWindow) -> Presentation:
        await self.process.step("present<")
        shown = self.laws.presenting(self.process, request, window)

        def on_sending() -> None:
            window.on_sending()
            self.laws.presented(shown, *self.process.sending)
            self.process.meet_traps("sent")

        try:
            presentation = await self.inner.present(request, replace(window, on_sending=on_sending))
        except asyncio.CancelledError:
            self.laws.given_up(shown)
            raise
        self.laws.answered(shown, presentation.answer)
        await self.process.step("present>")
        return presentation

    async def introspect(self, access_token: AccessToken) -> Introspection:
        await self.process.step("introspect<", is_brief=True)
        told = await self.inner.introspect(access_token)
        self.laws.told_whose(self.process, is_known=told.subject is not None)
        await self.process.step("introspect>")
        return told

    async def delete_installation(self, access_token: AccessToken) -> None:
        await self.process.step("delete<")
        await self.inner.delete_installation(access_token)
        await self.process.step("delete>")
