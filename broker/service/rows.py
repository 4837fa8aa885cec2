"""Reading and writing one grant's row: decide on what was read; if it is still so, write.

The one place that calls `GrantStore.apply`. A `Reading` ties PostgreSQL's clock to the event loop's
at the moment of the read, so that deadlines are kept without trusting this machine's wall clock,
nor that PostgreSQL's is never set back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from broker.domain.decision import Changed, Decision, Why
from broker.domain.errors import StoreUnavailable
from broker.domain.grant import Grant
from broker.domain.history import AttemptRecord, GrantEvent
from broker.domain.past import claims_from, in_doubt
from broker.domain.refresh_writes import let_go
from broker.domain.times import AttemptTimes
from broker.ports import Beside, Change, GrantStore, Snapshot
from broker.service.sightings import Sightings

BY_BROKER: Final = "broker"
"""The actor of what the broker concluded itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A snapshot, and when it was taken on the event loop's clock, in seconds."""

    snapshot: Snapshot
    asked_at: float
    """Before the statement was sent: own time is measured from here, so that it never ends late."""

    answered_at: float

    claims_from: datetime | None = None
    """When the last attempt is over that PostgreSQL may have lost: until then nobody claims."""

    leapt_from: float | None = None
    """When the row's attempt was first seen here, if PostgreSQL's clock has leapt forward since."""

    @property
    def grant(self) -> Grant:
        """The grant as it was."""
        return self.snapshot.grant

    @property
    def now(self) -> datetime:
        """PostgreSQL's clock when the row was read."""
        return self.snapshot.read_at

    def is_held_up(self) -> bool:
        """Whether attempts that PostgreSQL has lost may still be on the wire."""
        return self.claims_from is not None and self.now < self.claims_from

    def latest_now(self) -> datetime:
        """Returns PostgreSQL's time at this moment, or a little more: for asking what has ended."""
        elapsed = asyncio.get_running_loop().time() - self.asked_at
        return self.now + timedelta(seconds=elapsed)

    def earliest(self, at: float) -> datetime:
        """Returns PostgreSQL's time at a moment of the loop's clock, or a little less."""
        return self.now + timedelta(seconds=at - self.answered_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Who does something and why, for the grant's events."""

    actor: str = BY_BROKER
    call: str
    reason: str = ""
    is_administrative: bool = False
    """True: an event is written even if the state stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A decision, and what is to be written with it."""

    decision: Decision
    ended: AttemptRecord | None = None
    beside: Beside | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a write: the row as it is now, and why it was not allowed, if it was not."""

    reading: Reading
    not_allowed: Why | None

    @property
    def is_stale(self) -> bool:
        """Whether a pair was not stored because the grant had moved on without it."""
        return self.not_allowed in {Why.MOVED_ON, Why.STATE}


class BesideNotAppliedError(Exception):
    """The row is as it was read, and what was to be written beside it does not apply (any more)."""


class Rows:
    """The rows of all grants."""

    def __init__(self, store: GrantStore, times: AttemptTimes) -> None:
        """`store`: PostgreSQL. `times`: how long an attempt may last that it has lost."""
        self._store = store
        self._sightings = Sightings()
        self._times = times

    async def read(self, tenant: str) -> Reading:
        """Reads one row.

        Raises:
            StoreUnavailable: PostgreSQL cannot be asked.
        """
        asked_at = asyncio.get_running_loop().time()
        snapshot = await self._store.read(tenant)
        return self._reading(snapshot, asked_at)

    async def write(
        self, reading: Reading, decide: Callable[[Reading], Proposal], act: Act
    ) -> Written:
        """Decides on what was read and writes it; where the row changed meanwhile, again.

        Raises:
            StoreUnavailable: the write may or may not have been committed.
            BesideNotAppliedError: nothing was written.
            SubjectAlreadyConnected: nothing was written.
        """
        while True:
            proposal = decide(reading)
            if not isinstance(proposal.decision, Changed):
                return Written(reading=reading, not_allowed=proposal.decision.why)
            change = _change(reading.grant, proposal.decision.after, proposal, act)
            asked_at = asyncio.get_running_loop().time()
            snapshot = await self._store.apply(reading.snapshot, change)
            if snapshot is not None:
                return Written(reading=self._reading(snapshot, asked_at), not_allowed=None)
            reading = await self._read_other(reading, has_beside=proposal.beside is not None)

    async def note(self, reading: Reading, line: AttemptRecord) -> None:
        """Writes a line of the history beside the row, whatever it is by now.

        All that may change of it is that the line's attempt, which is over, goes.

        Raises:
            StoreUnavailable: the line is lost, or is not; nothing hangs on it.
        """

        def propose(current: Reading) -> Proposal:
            decision = let_go(current.grant, line.attempt)
            as_it_is = Changed(after=current.grant)
            return Proposal(
                decision=decision if isinstance(decision, Changed) else as_it_is, ended=line
            )

        await self.write(reading, propose, Act(call="note"))

    async def _read_other(self, reading: Reading, *, has_beside: bool) -> Reading:
        again = await self.read(reading.grant.tenant)
        if not again.snapshot.past.live:
            # The write went elsewhere, as behind a proxy that splits: for ever, were it repeated.
            raise StoreUnavailable("a standby answers reads", tenant=reading.grant.tenant)
        if has_beside and _is_same(again.snapshot, reading.snapshot):
            raise BesideNotAppliedError
        return again

    def _reading(self, snapshot: Snapshot, asked_at: float) -> Reading:
        answered_at = asyncio.get_running_loop().time()
        heeded, leapt_from = self._sightings.heed(
            snapshot, asked_at=asked_at, answered_at=answered_at
        )
        span, past, now = self._times.span, heeded.past, heeded.read_at
        return Reading(
            # Every write starts from what is read here, so that none of them forgets the doubt.
            snapshot=replace(heeded, grant=in_doubt(heeded.grant, past, span=span, now=now)),
            asked_at=asked_at,
            answered_at=answered_at,
            claims_from=claims_from(past, span=span, now=now),
            leapt_from=leapt_from,
        )


def _is_same(one: Snapshot, other: Snapshot) -> bool:
    return (one.version, one.past.live) == (other.version, other.past.live)


def _change(before: Grant, after: Grant, proposal: Proposal, act: Act) -> Change:
    change = Change(after=after, ended=proposal.ended, beside=proposal.beside)
    if before.state is after.state and not act.is_administrative:
        return change
    event = GrantEvent(
        tenant=after.tenant,
        actor=act.actor,
        call=act.call,
        reason=act.reason,
        before=before.state,
        after=after.state,
        generation=after.generation,
    )
    return replace(change, event=event)
