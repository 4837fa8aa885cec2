"""From a claim in doubt to the wire: a quarantine, a look for escrows, then arming (law 2)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from broker.domain.backoff import delay, next_failure
from broker.domain.decision import Changed, Unchanged, Why
from broker.domain.errors import StoreUnavailable
from broker.domain.facts import EscrowsUnreachable
from broker.domain.grant import Attempt, AttemptPhase, FailureKind, FailureRecord, Grant
from broker.domain.history import AttemptOutcome, AttemptRecord
from broker.domain.refresh_writes import arm, let_go
from broker.domain.times import AttemptTimes
from broker.ports import Observer
from broker.service.adoption import Adoption
from broker.service.claim import Claims
from broker.service.rows import Act, Proposal, Reading, Rows
from broker.service.settle import Claimed

ESCROWS_UNREACHABLE: Final = "escrows_unreachable"
"""The code of an attempt that could not look for escrows."""

BLIND_FOR: Final = timedelta(minutes=15)
"""How long it comes back before it presents all the same. By then the pair, if there is one, lies
in a Redis that is gone, or its owner is."""

WATCH_PAUSE: Final = 1.0
"""Seconds between looks during a quarantine: an outage that goes unseen between two of them is
shorter than the pause of a holder's next tries (`settle.LONGEST_PAUSE`)."""


class Arming:
    """Makes claims of this replica ready for the wire, or lets them go."""

    def __init__(
        self,
        claims: Claims,
        rows: Rows,
        times: AttemptTimes,
        observer: Observer,
        *,
        adoption: Adoption,
    ) -> None:
        """`claims`: who made them, and says when the broker is stopping."""
        self._claims = claims
        self._rows = rows
        self._times = times
        self._observer = observer
        self._adoption = adoption

    async def armed(self, claimed: Claimed) -> Claimed | Reading:
        """Returns the attempt ready for the wire; after abandoned doubt, only after a quarantine.

        The quarantine is measured here, not on PostgreSQL's clock: a holder of the pair that may
        exist must have had its time, however clocks jump. Then escrows are looked for, before the
        arming, which wants Redis reachable, and after it, which is the look that counts. Returns
        the row when the attempt was lost meanwhile, or is not to present.

        Raises:
            StoreUnavailable: nothing may be sent.
        """
        if claimed.attempt.phase is AttemptPhase.ARMED:
            return claimed
        await self._quarantine(claimed)
        looked = await self._unless_escrowed(claimed)
        if isinstance(looked, Reading):
            return looked
        armed = await self._arm(claimed)
        return armed if isinstance(armed, Reading) else await self._unless_escrowed(armed)

    async def _unless_escrowed(self, claimed: Claimed) -> Claimed | Reading:
        """Returns the attempt where there is no escrow; else adopts what there is and lets go.

        An escrow that may not be adopted means that the row has moved on: then too it is read
        again.
        """
        tenant = claimed.reading.grant.tenant
        found = await self._adoption.find(tenant)
        if found is None:
            return await self._without_looking(claimed)
        reading = claimed.reading
        for escrow in found:
            reading = await self._adoption.adopt(escrow, adopter=claimed.attempt)
        return await self._let_go(claimed, reading) if found else claimed

    async def _without_looking(self, claimed: Claimed) -> Claimed | Reading:
        last = claimed.reading.grant.failures
        tries = 1 + (last.count if last.code == ESCROWS_UNREACHABLE else 0)
        presents = tries > blind_tries(self._times.quarantine)
        self._observer.observe(
            EscrowsUnreachable(
                tenant=claimed.reading.grant.tenant,
                number=claimed.attempt.number,
                tries=tries,
                presents=presents,
            )
        )
        if presents:
            return claimed
        failures = next_failure(
            last if tries > 1 else FailureRecord(),
            kind=FailureKind.OUTCOME_UNKNOWN,
            code=ESCROWS_UNREACHABLE,
            now=claimed.reading.latest_now(),
        )
        return await self._let_go(claimed, claimed.reading, failures=failures)

    async def _quarantine(self, claimed: Claimed) -> None:
        """Lets a living holder store its pair; ends early where there is nothing to arm any more.

        Only time in which PostgreSQL can take a pair counts: after an outage it starts afresh. Only
        a write shows that: reads go on where a failover or a full disk has left it read-only.

        Where PostgreSQL's clock leapt over the deadline of the attempt that was replaced, its owner
        may be on the wire for as long as its span by our own clock (law 1).
        """
        loop, quarantine = asyncio.get_running_loop(), self._times.quarantine.total_seconds()
        over_at = claimed.leapt_from + self._times.span.total_seconds()
        ends_at = max(claimed.started_at + quarantine, over_at)
        while (left := ends_at - loop.time()) > 0:
            await asyncio.sleep(min(left, WATCH_PAUSE))
            try:
                is_ours = await self._touch(claimed)
            except StoreUnavailable:
                ends_at = max(loop.time() + quarantine, over_at)
            else:
                if not is_ours:
                    return

    async def _touch(self, claimed: Claimed) -> bool:
        """Writes the row as it is; says whether there is still something to wait for."""

        def propose(current: Reading) -> Proposal:
            if not _may_be_armed(current.grant, claimed.attempt):
                return Proposal(decision=Unchanged(why=Why.MOVED_ON))
            return Proposal(decision=Changed(after=current.grant))

        reading = await self._rows.read(claimed.reading.grant.tenant)
        written = await self._rows.write(reading, propose, Act(call="quarantine"))
        return written.not_allowed is None

    async def _arm(self, claimed: Claimed) -> Claimed | Reading:
        started = await self._rows.read(claimed.reading.grant.tenant)
        if self._claims.is_stopping:
            return await self._let_go(claimed, started)

        def propose(current: Reading) -> Proposal:
            nonlocal started
            self._claims.refuse_when_stopping(current.grant.tenant)
            started = current
            if current.is_held_up():
                return Proposal(decision=Unchanged(why=Why.ATTEMPT_LIVE))
            deadline = current.now + self._times.span
            decision = arm(current.grant, claimed.attempt, deadline=deadline, now=current.now)
            return Proposal(decision=decision)

        written = await self._rows.write(started, propose, Act(call="arm"))
        attempt = written.reading.grant.attempt
        if written.not_allowed is not None or attempt is None:
            return await self._let_go(claimed, written.reading)
        return Claimed(reading=written.reading, attempt=attempt, started_at=started.asked_at)

    async def let_go(self, claimed: Claimed) -> Reading:
        """Ends an attempt that has presented nothing, and is not to; returns the row after it.

        Raises:
            StoreUnavailable: it ends at its deadline.
        """
        return await self._let_go(claimed, claimed.reading)

    async def _let_go(
        self, claimed: Claimed, reading: Reading, *, failures: FailureRecord | None = None
    ) -> Reading:
        def propose(current: Reading) -> Proposal:
            decision = let_go(current.grant, claimed.attempt, failures=failures)
            ended = _let_go_line(current, claimed.attempt)
            return Proposal(
                decision=decision, ended=ended if isinstance(decision, Changed) else None
            )

        return (await self._rows.write(reading, propose, Act(call="let go"))).reading


def blind_tries(quarantine: timedelta) -> int:
    """Returns how often it comes back in that time: a quarantine each, and the pause after it."""
    tries, gone = 0, timedelta(0)
    while gone < BLIND_FOR:
        tries += 1
        gone += quarantine + delay(tries)
    return tries


def _let_go_line(current: Reading, mine: Attempt) -> AttemptRecord:
    return AttemptRecord(
        tenant=current.grant.tenant,
        attempt=mine,
        outcome=AttemptOutcome.LET_GO,
        ended_at=current.now,
    )


def _may_be_armed(grant: Grant, mine: Attempt) -> bool:
    """Whether it is still worth waiting; `arm` is the one that decides."""
    return grant.owns(mine.number) and grant.generation == mine.base_generation
