"""The end of a schedule, when all is well again: nothing is stuck, left, or lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from broker.domain.errors import ReauthRequired, SubjectMismatch, TenantNotFound
from broker.domain.grant import Grant, GrantState
from broker.domain.guard import GuardState, Release
from broker.service.messages import ServedToken
from simulation.cast import Cast
from simulation.keeping import refresh_token_of
from simulation.laws import NOTHING_LOST, Shown
from simulation.people import People
from simulation.plan import What
from simulation.process import Gone

STUCK: Final = "all is well in the end"

PATIENCE_SECONDS: Final = 900.0
"""Attempts' deadlines, quarantines and pauses of a minute, one after another."""

_TURN_SECONDS: Final = 5.0

_CANARY_SECONDS: Final = 60.0
"""In which a canary is chosen, presented, and believed, though its first attempt was lost."""

_RELEASING: Final = frozenset({GuardState.CONFIRMING, GuardState.DISCARDING})

_BY_OTHERS: Final = frozenset({"the company disconnected", "consented again"})
"""Ends of a grant at Pleo that no presentation brought about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Waits until all is as it should be, and says so where it never is."""

    cast: Cast
    people: People

    async def judge(self) -> None:
        """Judges twice where what is served from memory now may not be refreshed once more."""
        await self._well()
        if not all(map(self._is_settled, self.cast.plan.tenants)):
            await asyncio.sleep(self._until_due())
            await self._well()
        for tenant in self.cast.plan.tenants:
            self._judge_lost(tenant)
            self.cast.commits.guard.judge_left(tenant)
        self.cast.commits.guard.judge_unheld()
        for refresh_token in self.cast.laws.brought_by:
            self._judge_unstored(refresh_token)

    def _is_settled(self, tenant: str) -> bool:
        """Whether the next refresh will be one like any other."""
        world = self.cast.fleet.world
        row = world.rows[tenant].grant if tenant in world.rows else Grant(tenant=tenant)
        if row.state is GrantState.HELD:
            return False
        if row.state is not GrantState.ACTIVE:
            return row.attempt is None
        is_clean = row.attempt is None and not row.doubt and not row.failures.count
        return is_clean and self.cast.keeping.is_alive(refresh_token_of(row) or "")

    def _until_due(self) -> float:
        rows = (row.grant.renew_at for row in self.cast.fleet.world.rows.values())
        left = [(at - self.cast.clock.now()).total_seconds() for at in rows if at is not None]
        return max([0.0, *left])

    async def _well(self) -> None:
        began_at = asyncio.get_running_loop().time()
        while (wrong := await self._wrong()) and not self.cast.story.broken:
            gone = asyncio.get_running_loop().time() - began_at
            if gone > PATIENCE_SECONDS:
                self.cast.story.break_law(STUCK, wrong)
                return
            if gone > _CANARY_SECONDS:
                # Who was let out and is refused again has left.
                is_first = gone <= 2 * _CANARY_SECONDS
                await self._decide(self.cast.plan.verdict if is_first else "confirm")
            await asyncio.sleep(_TURN_SECONDS)

    async def _decide(self, verdict: What) -> None:
        """Lets an engineer end a hold that no canary has ended, and nobody has waited for."""
        is_holding = self.cast.fleet.world.fleet.guard.state is GuardState.HOLDING
        process = self.cast.on(self.cast.plan.slots[0])
        if is_holding and process is not None:
            await self.people.decide(process, Release[verdict.upper()])

    async def _wrong(self) -> str:
        """Returns something that is not as it should be; nothing: all is well."""
        for slot in self.cast.plan.slots:
            for tenant in self.cast.plan.tenants:
                if wrong := await self._wrong_with(slot, tenant):
                    return f"{tenant} on {slot}: {wrong}"
        if self.cast.fleet.redis.escrows:
            return "an escrow remains"
        if self.cast.fleet.world.fleet.guard.state in _RELEASING:
            return "the guard has not released all"
        living = [self.cast.on(slot) for slot in self.cast.plan.slots]
        held = [
            each.name for each in living if each and each.service and len(each.service.holdings)
        ]
        return f"{held[0]} holds a pair" if held else ""

    async def _wrong_with(self, slot: str, tenant: str) -> str:
        process = self.cast.on(slot)
        if process is None or process.service is None:
            return "no process"
        told = await self.people.get(process, tenant, seconds=30.0)
        row = self.cast.fleet.world.rows.get(tenant)
        return (
            "" if self._is_right(told, row.grant if row else Grant(tenant=tenant)) else repr(told)
        )

    def _is_right(self, told: ServedToken | Exception | Gone, row: Grant) -> bool:
        match row.state:
            case GrantState.ACTIVE:
                return isinstance(told, ServedToken) and self._is_fresh(told, row)
            case GrantState.REAUTH_REQUIRED:
                return isinstance(told, ReauthRequired)
            case GrantState.HELD:
                return False
            case _:
                return isinstance(told, TenantNotFound)

    def _is_fresh(self, told: ServedToken, row: Grant) -> bool:
        """Whether Pleo honours it, or has ended its grant meanwhile, which nobody told us."""
        if told.is_degraded or told.generation != row.generation:
            return False
        server, now = self.cast.fleet.pleo.sandbox.server, self.cast.fleet.pleo.sandbox.now()
        located = server.realm.ledger.find_access_token(told.access_token.reveal())
        return located is not None and (located.is_accepted(now) or located.grant.ended is not None)

    def _judge_lost(self, tenant: str) -> None:
        row = self.cast.fleet.world.rows.get(tenant)
        if row is None or row.grant.state is not GrantState.REAUTH_REQUIRED:
            return
        presented = self.cast.laws.last_refresh_token(tenant)
        located = self.cast.keeping.find(presented)
        was_ended = located is not None and located.grant.ended in _BY_OTHERS
        was_ended |= presented in self.cast.laws.wronged
        if not was_ended and tenant not in self.cast.laws.doubtful:
            self.cast.story.break_law(NOTHING_LOST, f"{tenant} is lost, and every answer came")

    def _was_refused(self, shown: Shown) -> bool:
        """Whether its company was not, or could not be told to be, the one that may consent.

        Nobody's or a stranger's tokens are not kept (ARCHITECTURE.md, "Decisions").
        """
        return any(
            (each.tenant, each.attempt_number) == (shown.tenant, shown.number)
            and each.outcome is not None
            and each.outcome.reason == SubjectMismatch.reason
            for each in self.cast.fleet.world.authorizations.values()
        )

    def _judge_unstored(self, refresh_token: str) -> None:
        """Judges a pair that lives and was never stored: something newer must have won."""
        keeping, shown = self.cast.keeping, self.cast.laws.brought_by[refresh_token]
        if shown.tenant in self.cast.laws.haunted:
            return
        if shown.refresh_token is None and shown.is_settled:
            return  # a consent that may not be stored: of another company, or of nobody knows which
        was_safe = refresh_token in keeping.escrowed or not keeping.may_be_lost(refresh_token)
        if refresh_token in keeping.stored or not was_safe or not keeping.is_alive(refresh_token):
            return
        row = keeping.world.rows[shown.tenant].grant
        mine, theirs = keeping.find(refresh_token), keeping.find(refresh_token_of(row) or "")
        is_of_this_grant = mine and theirs and mine.grant is theirs.grant
        if self._was_refused(shown):
            return
        if shown.number > row.consent_attempt and (shown.refresh_token is None or is_of_this_grant):
            what = f"{keeping.name(refresh_token)} of {shown.process.name} was never stored"
            self.cast.story.break_law(NOTHING_LOST, what)
