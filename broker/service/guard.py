"""Carries out what the fleet guard stands for: holding back, confirming, discarding.

Every replica does it, a few grants at a turn; each write is fenced, so that none is in another's
way. Dead refresh tokens are destroyed here too, once nobody may want them back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

from broker.domain import guard as guards
from broker.domain.decision import Decision, Unchanged, Why
from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.domain.facts import ReauthBecameRequired
from broker.domain.fleet import FleetState
from broker.domain.grant import Reauth
from broker.domain.guard import Guard, GuardState, Release
from broker.domain.guard_writes import (
    confirm,
    destroy_refused,
    discard,
    hold_back,
)
from broker.domain.history import FleetAct
from broker.domain.times import AttemptTimes
from broker.ports import FleetStore, Guarded, Observer
from broker.service.adoption import Adoption
from broker.service.fleet import Fleet
from broker.service.overseeing import Overseer
from broker.service.rows import Act, Reading
from broker.service.weighing import Weighing

TURN_SECONDS: Final = 2.0
"""Between turns, and what one replica learns has to reach all within five."""

TIDY_SECONDS: Final = 60.0
"""Between looks for tokens to destroy: a minute more or less makes no difference to them."""

BATCH: Final = 200
"""Grants a turn: about a second of PostgreSQL's time."""

BLIND_AFTER: Final = timedelta(minutes=15)
"""After so long a Redis that is gone keeps no grant held: as long as it keeps a refresh waiting
(`claim.BLIND_TRIES`)."""

MANY: Final = 10_000
"""More held grants than that are told as that many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What became of the held grants."""

    released: int
    remaining: int
    """Held still: an attempt of theirs is under way or in doubt. They follow by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardKeeper:
    """The guard's hands, in this replica."""

    fleet: Fleet
    weighing: Weighing
    store: FleetStore
    overseer: Overseer
    adoption: Adoption
    times: AttemptTimes
    observer: Observer
    keep_for: timedelta
    """How long what is given up stays sealed."""

    async def turn(self) -> None:
        """Does what is due now.

        Raises:
            BrokerError: the rest is done at the next turn.
        """
        await self.weighing.weigh_what_is_owed()
        # First: what is decided is about these too, and none is held back once it is.
        await self._hold_back()
        await self.fleet.decide(_decided_when_due)
        guard = self.fleet.guard
        match guard.state:
            case GuardState.WATCHING | GuardState.HOLDING:
                return
            case GuardState.CONFIRMING | GuardState.DISCARDING:
                await self._release_batch(guard)
            case _:
                assert_never(guard.state)

    async def release(self, release: Release, *, by: str, reason: str) -> Released:
        """Ends the hold as an engineer decides, as far as it goes at once.

        Raises:
            StoreUnavailable: the decision may stand; what it is about follows by itself.
        """

        def decided(state: FleetState, now: datetime) -> FleetState:
            guard = guards.decide(state.guard, release, now=now, by=by, reason=reason)
            return replace(state, guard=guard)

        await self.fleet.poll()
        await self._hold_back()
        await self._note(release, by=by, reason=reason)
        await self.fleet.decide(decided)
        released, guard = 0, self.fleet.guard
        while count := await self._release_batch(guard):
            released += count
        left = await self.store.tenants(Guarded.HELD, limit=MANY)
        return Released(released=released, remaining=len(left))

    async def _note(self, release: Release, *, by: str, reason: str) -> None:
        """Puts the decision on record before it is made, also where nothing is held."""
        guard = self.fleet.guard
        act = FleetAct(
            actor=by,
            call=f"guard {release.value}",
            reason=reason,
            before=guard.state.value,
            after=guards.leads_to(guard, release).value,
        )
        await self.store.note(act)

    async def tidy(self) -> None:
        """Destroys tokens that nobody may want back, and gives up what a hold left behind.

        Raises:
            BrokerError: the rest is done at the next turn.
        """
        dead = await self.store.tenants(Guarded.DEAD, limit=BATCH)
        held = await self.store.tenants(Guarded.HELD, limit=BATCH)
        # After the lists, and never from memory: a hold that begins later is not about these.
        await self.fleet.poll()
        guard, act = self.fleet.guard, Act(call="destroy refused tokens")
        for tenant in dead:
            await self._write(
                tenant, lambda row: destroy_refused(row.grant, guard, now=row.now), act
            )
        if guard.state is GuardState.WATCHING:
            # Held by a replica that had not heard yet that the hold was over.
            act = Act(call="guard CONFIRM", reason="the hold is over")
            for tenant in held:
                await self._confirm(tenant, act, blind_from=None)

    async def _hold_back(self) -> None:
        """Holds what was refused shortly before the guard began to hold, if it does."""
        guard = self.fleet.guard
        if guard.state is not GuardState.HOLDING:
            return
        act = Act(call="guard HOLD", reason="many grants were refused at once")
        for tenant in await self.store.tenants(Guarded.BELIEVED, limit=BATCH):
            await self._write(tenant, lambda row: hold_back(row.grant, guard), act)

    async def _release_batch(self, guard: Guard) -> int:
        """Releases some, and says how many; where none was left, the guard watches again."""
        if guard.state is GuardState.CONFIRMING:
            count, seen = await self._confirm_batch(guard)
        elif guard.state is GuardState.DISCARDING:
            count, seen = await self._discard_batch(guard)
        else:
            return 0
        if not seen:  # a batch that was released whole says nothing about those behind it
            await self.fleet.change(lambda state, _: _finished(state, guard))
        return count

    async def _confirm_batch(self, guard: Guard) -> tuple[int, int]:
        act = _act(guard, Release.CONFIRM)
        held = await self.store.tenants(Guarded.HELD, limit=BATCH)
        count = 0
        for tenant in held:
            count += await self._confirm(tenant, act, blind_from=guard.counted_from)
        return count, len(held)

    async def _discard_batch(self, guard: Guard) -> tuple[int, int]:
        act = _act(guard, Release.DISCARD)
        found = list(await self.store.tenants(Guarded.HELD, limit=BATCH))
        if guard.decided_by != guards.BROKER:
            # What an engineer gave up in an earlier incident no canary takes back.
            found += await self.store.tenants(Guarded.GIVEN_UP, limit=BATCH)
        count = 0
        for tenant in found:
            count += await self._write(tenant, lambda row: discard(row.grant, now=row.now), act)
        return count, len(found)

    async def _write(self, tenant: str, decide: Callable[[Reading], Decision], act: Act) -> bool:
        """As `Overseer.write`; a grant that cannot be sealed or opened holds up no other."""
        try:
            return await self.overseer.write(tenant, decide, act)
        except (KeyUnavailable, RecordUnreadable):
            return False

    async def _confirm(self, tenant: str, act: Act, *, blind_from: datetime | None) -> bool:
        """Gives one up, unless a newer pair lies in escrow; says whether it did.

        `blind_from`: from when on Redis is missed, if not from the refusal.
        """
        row = await self.overseer.rows.read(tenant)
        missed_from = blind_from or (row.grant.reauth.since if row.grant.reauth else row.now)
        is_blind = row.now >= missed_from + BLIND_AFTER
        if not await self._has_no_escrow(tenant, is_blind=is_blind):
            return False
        generation = (await self.overseer.rows.read(tenant)).grant.generation

        def decide(row: Reading) -> Decision:
            if row.is_held_up():
                # PostgreSQL has lost commits: who remembers a newer pair writes it back first.
                return Unchanged(why=Why.TOO_EARLY)
            return confirm(
                row.grant,
                generation=generation,
                quarantine=self.times.quarantine,
                keep_for=self.keep_for,
                now=row.now,
            )

        is_given_up = await self._write(tenant, decide, act)
        if is_given_up and row.grant.reauth is not None:
            self._tell(tenant, row.grant.reauth)
        return is_given_up

    def _tell(self, tenant: str, reauth: Reauth) -> None:
        self.observer.observe(
            ReauthBecameRequired(
                tenant=tenant, cause=reauth.cause, provider_error=reauth.provider_error
            )
        )

    async def _has_no_escrow(self, tenant: str, *, is_blind: bool) -> bool:
        found = await self.adoption.find(tenant)
        if found is None:
            return is_blind  # "unreachable" is not "there is none"
        for escrow in found:
            try:
                await self.adoption.adopt(escrow)
            except (KeyUnavailable, RecordUnreadable):
                return False  # there is one, and nobody knows whether it is newer
        return True


def _decided_when_due(state: FleetState, now: datetime) -> FleetState:
    return replace(state, guard=guards.decide_when_due(state.guard, now=now))


def _finished(state: FleetState, guard: Guard) -> FleetState:
    """Not where somebody has decided otherwise meanwhile."""
    return replace(state, guard=guards.finish(guard)) if state.guard == guard else state


def _act(guard: Guard, release: Release) -> Act:
    return Act(actor=guard.decided_by, call=f"guard {release.value}", reason=guard.reason)
