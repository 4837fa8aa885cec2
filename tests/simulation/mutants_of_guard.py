"""The fleet guard and planned work with one rule broken, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta

from broker.domain import guard as guards
from broker.domain import guard_writes
from broker.domain.claims import Claimer, new_attempt
from broker.domain.decision import Changed, Decision, Unchanged, Why
from broker.domain.evidence import Evidence
from broker.domain.facts import Source
from broker.domain.fleet import FleetState
from broker.domain.grant import (
    AttemptKind,
    AttemptPhase,
    Grant,
    GrantState,
    Reauth,
    ReauthCause,
)
from broker.domain.guard import Guard
from broker.domain.next_step import NextStep, Refresh, Serve
from broker.ports import Presentation
from broker.service import canary, fetch, guard, refresh, settle
from broker.service.rows import Act, Reading
from broker.service.weighing import Weighing
from simulation.mutating import replaced


def guard_confirms_unfenced() -> AbstractContextManager[None]:
    """Gives up what was held when it was looked at, whatever has become of it since."""

    def blindly(
        grant: Grant, *, generation: int, quarantine: timedelta, keep_for: timedelta, now: datetime
    ) -> Decision:
        del generation, quarantine
        cause = ReauthCause.EXPIRED_OR_REVOKED
        reauth = grant.reauth or Reauth(cause=cause, since=now)
        until = now + keep_for
        state = GrantState.REAUTH_REQUIRED
        return Changed(after=replace(grant, state=state, reauth=reauth, quarantined_until=until))

    return replaced((guard, "confirm", blindly))


def guard_confirms_after_lost_commits_at_once() -> AbstractContextManager[None]:
    write = guard.GuardKeeper._write  # noqa: SLF001 - as in the other mutants

    async def at_once(
        self: guard.GuardKeeper, tenant: str, decide: Callable[[Reading], Decision], act: Act
    ) -> bool:
        return await write(self, tenant, lambda row: decide(replace(row, claims_from=None)), act)

    return replaced((guard.GuardKeeper, "_write", at_once))


def guard_never_holds() -> AbstractContextManager[None]:
    def never(_evidence: Evidence) -> bool:
        return False

    return replaced((guards, "trips", never))


def guard_holds_for_one_refusal() -> AbstractContextManager[None]:
    def at_once(evidence: Evidence) -> bool:
        return evidence.refused_grants >= 1

    return replaced((guards, "trips", at_once))


def guard_holds_nothing_back() -> AbstractContextManager[None]:
    async def nothing(_self: guard.GuardKeeper) -> None:
        return None

    return replaced((guard.GuardKeeper, "_hold_back", nothing))


def guard_undoes_decisions() -> AbstractContextManager[None]:
    def held(
        self: Weighing, _counted_from: datetime | None
    ) -> Callable[[FleetState, datetime], FleetState]:
        return lambda state, now: replace(
            state, guard=guards.hold(state.guard, now=now, hold_for=timedelta(hours=4))
        )

    return replaced((Weighing, "_holding", held))


def guard_decides_early() -> AbstractContextManager[None]:
    def at_once(stands: Guard, *, now: datetime) -> Guard:
        until = min(stands.until, now) if stands.until else None
        return decide_when_due(replace(stands, until=until), now=now)

    decide_when_due = guards.decide_when_due
    return replaced((guards, "decide_when_due", at_once))


def guard_discards_before_the_canary_has_rotated() -> AbstractContextManager[None]:
    """The canary is taken for alive because it was let out."""

    def hopeful(grant: Grant, chosen: guards.Canary) -> bool:
        return grant.state is GrantState.ACTIVE and grant.generation == chosen.generation

    return replaced((canary, "_has_rotated", hopeful))


def discard_leaves_what_was_given_up() -> AbstractContextManager[None]:
    def only_held(grant: Grant, *, now: datetime) -> Decision:
        if grant.state is not GrantState.HELD:
            return Unchanged(why=Why.STATE)
        return guard_writes.discard(grant, now=now)

    return replaced((guard, "discard", only_held))


def renewal_takes_no_claim() -> AbstractContextManager[None]:
    """Planned work is alone with what is due, is it not."""
    send = refresh.Refresher._send  # noqa: SLF001 - as in the other mutants

    async def unclaimed(
        self: refresh.Refresher, reading: Reading, overdue: asyncio.Future[None], *, has_turn: bool
    ) -> tuple[settle.Claimed, Presentation] | Reading:
        if not has_turn:
            return await send(self, reading, overdue, has_turn=has_turn)
        claimer = Claimer(
            attempt_id=f"planned {reading.asked_at}",
            kind=AttemptKind.REFRESH,
            replica="planned",
            deadline=reading.now + timedelta(seconds=30),
        )
        attempt = new_attempt(reading.grant, claimer, AttemptPhase.ARMED, reading.now)
        claimed = settle.Claimed(reading=reading, attempt=attempt, started_at=reading.asked_at)
        return claimed, await self._present(claimed, overdue)

    return replaced((refresh.Refresher, "_send", unclaimed))


def renewal_rotates_what_is_fresh() -> AbstractContextManager[None]:
    """What was due when it was taken is rotated, also where a caller was quicker."""

    def regardless(errand: fetch.Errand, reading: Reading) -> NextStep:
        step = decide(errand, reading)
        is_first = errand.has_turn and errand.source is Source.DATABASE
        if is_first and isinstance(step, Serve):
            return Refresh(generation=reading.grant.generation)
        return step

    decide = fetch._next  # noqa: SLF001 - as in the other mutants
    return replaced((fetch, "_next", regardless))
