"""The canary: one held grant, presented again once to see whether Pleo still refuses.

Which one it is stands in the fleet's row, so that all replicas ask the same one, and none asks it
twice: refused again, it is held since later. One that goes its own way is followed by another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.domain import guard as guards
from broker.domain.decision import Decision, Unchanged, Why
from broker.domain.errors import GrantHeld
from broker.domain.fleet import FleetState
from broker.domain.grant import Doubt, Grant, GrantState, Reauth, ReauthCause
from broker.domain.guard import Canary, GuardState, Release
from broker.domain.guard_writes import discard
from broker.ports import FleetStore, Guarded
from broker.service.fleet import Fleet
from broker.service.overseeing import Overseer
from broker.service.rows import Act, Reading

CANDIDATES: Final = 50
"""Held grants that are looked at for one that is fit, each time: few do not open."""

_ACT: Final = Act(call="guard CANARY", reason="presented again to see whether Pleo still refuses")


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryKeeper:
    """Chooses the canary, has it presented, and believes what comes of it."""

    fleet: Fleet
    store: FleetStore
    overseer: Overseer
    refresh: Callable[[str], Awaitable[object]]
    """Gets a token of a tenant, as callers do."""

    async def turn(self) -> None:
        """Does what is due now.

        Raises:
            BrokerError: no answer yet; it is asked again at the next turn.
        """
        if not self.fleet.is_holding():
            return
        canary = self.fleet.guard.canary
        if canary is None:
            await self._choose()
            return
        grant = (await self.overseer.rows.read(canary.tenant)).grant
        if _has_rotated(grant, canary):
            await self.fleet.decide(_discarded)
        elif _is_to_be_asked(grant, canary):
            await self._let_out(canary)
            await self._ask(canary)
        elif _is_being_asked(grant, canary):
            await self._ask(canary)
        elif grant.state is not GrantState.HELD:
            await self.fleet.change(_without(canary))

    async def _ask(self, canary: Canary) -> None:
        with suppress(GrantHeld):  # refused again: an answer too, and the hold goes on
            await self.refresh(canary.tenant)

    async def _let_out(self, canary: Canary) -> None:
        def decide(row: Reading) -> Decision:
            # Asked again: another replica may have had it presented since.
            if not _is_to_be_asked(row.grant, canary):
                return Unchanged(why=Why.MOVED_ON)
            return discard(row.grant, now=row.now)

        await self.overseer.write(canary.tenant, decide, _ACT)

    async def _choose(self) -> None:
        for tenant in await self.store.tenants(Guarded.CERTAIN, limit=CANDIDATES):
            reading = await self.overseer.rows.read(tenant)
            reauth = reading.grant.reauth
            if reauth is not None and _is_fit(reading.grant):
                await self.fleet.change(_choosing(reading.grant, reauth))
                return


def _choosing(grant: Grant, reauth: Reauth) -> Callable[[FleetState, datetime], FleetState]:
    def chosen(state: FleetState, _now: datetime) -> FleetState:
        guard = state.guard
        if guard.state is not GuardState.HOLDING or guard.canary is not None:
            return state
        canary = Canary(tenant=grant.tenant, generation=grant.generation, refused_at=reauth.since)
        return replace(state, guard=replace(guard, canary=canary))

    return chosen


def _without(canary: Canary) -> Callable[[FleetState, datetime], FleetState]:
    def given_up(state: FleetState, _now: datetime) -> FleetState:
        guard = state.guard
        if guard.canary != canary:
            return state
        return replace(state, guard=replace(guard, canary=None))

    return given_up


def _discarded(state: FleetState, now: datetime) -> FleetState:
    guard = state.guard
    if guard.state is not GuardState.HOLDING:
        return state
    reason = "the canary rotated: Pleo refuses no more"
    decided = guards.decide(guard, Release.DISCARD, now=now, by=guards.BROKER, reason=reason)
    return replace(state, guard=decided)


def _is_fit(grant: Grant) -> bool:
    """Whether an answer to this one says something about Pleo: nothing was in doubt."""
    return (
        grant.state is GrantState.HELD
        and grant.doubt is Doubt.NONE
        and grant.reauth is not None
        and grant.reauth.cause is ReauthCause.EXPIRED_OR_REVOKED
        and grant.can_be_presented()
    )


def _is_to_be_asked(grant: Grant, canary: Canary) -> bool:
    """Whether it is held as it was chosen."""
    return (
        grant.state is GrantState.HELD
        and grant.generation == canary.generation
        and grant.reauth is not None
        and grant.reauth.since == canary.refused_at
    )


def _is_being_asked(grant: Grant, canary: Canary) -> bool:
    """Whether no answer has come yet."""
    return grant.state is GrantState.ACTIVE and grant.generation == canary.generation


def _has_rotated(grant: Grant, canary: Canary) -> bool:
    """Whether the refresh of it went through.

    A new consent says nothing of the old grants, and neither do its refreshes.
    """
    return grant.pair_base == canary.generation and grant.generation > canary.generation
