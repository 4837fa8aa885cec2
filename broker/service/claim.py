"""Claiming the right to present, and arming it after a quarantine (laws 1 and 2)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.backoff import delay, next_failure
from broker.domain.claims import Claimer
from broker.domain.decision import Changed, Decision, Unchanged, Why
from broker.domain.errors import RefreshInProgress, StoreUnavailable
from broker.domain.facts import AttemptClaimed, EscrowsUnreachable
from broker.domain.grant import (
    Attempt,
    AttemptKind,
    AttemptPhase,
    FailureKind,
    FailureRecord,
    Grant,
)
from broker.domain.history import AttemptOutcome, AttemptRecord
from broker.domain.refresh_writes import arm, claim_refresh, let_go
from broker.domain.times import AttemptTimes
from broker.ports import Beside, Chance, Observer
from broker.service.adoption import Adoption
from broker.service.rows import Act, Proposal, Reading, Rows
from broker.service.settle import Claimed

CLAIM_TRIES: Final = 3
"""A claim whose acknowledgement was lost is tried again with the same id: once for the connection
that broke, once more for the pool's next broken one."""

READING_LASTS: Final = 1.0
"""Seconds that a row may wait in memory for its claim. An attempt's own time counts from the read:
after a queue of ten seconds nothing would be sent. Not longer than the breaker's shortest pause,
because a probe that seems to be older than the breaker closes nothing."""

RETRY_PAUSE: Final = 0.2
"""Seconds between them: about what a PostgreSQL that restarts a connection needs."""

ESCROWS_UNREACHABLE: Final = "escrows_unreachable"
"""The code of an attempt that could not look for escrows."""

BLIND_FOR: Final = timedelta(minutes=15)
"""How long it comes back before it presents all the same. By then the pair, if there is one, lies
in a Redis that is gone, or its owner is."""

WATCH_PAUSE: Final = 1.0
"""Seconds between looks during a quarantine: an outage that goes unseen between two of them is
shorter than the pause of a holder's next tries (`settle.LONGEST_PAUSE`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What to claim, by which rule, and what else is written with it."""

    kind: AttemptKind
    decide: Callable[[Grant, Claimer, Reading], Decision]
    beside: Callable[[Attempt], Beside] | None = None
    presents: bool = True
    """Whether anything is to be shown to Pleo: else there is no turn to wait for."""


class Claims:
    """Makes claims for this replica."""

    def __init__(
        self,
        rows: Rows,
        times: AttemptTimes,
        chance: Chance,
        observer: Observer,
        *,
        adoption: Adoption,
        replica: str,
    ) -> None:
        """`replica`: this process's name in rows and history."""
        self._adoption = adoption
        self._rows = rows
        self._times = times
        self._chance = chance
        self._observer = observer
        self._replica = replica
        self._is_stopping = False

    def stop(self) -> None:
        """Claims nothing any more: what would be sent now might not be settled in time."""
        self._is_stopping = True

    async def claim_refresh(self, reading: Reading) -> Claimed | Reading:
        """Claims a refresh of the generation that was read.

        Returns the row instead when the claim was not allowed any more. The attempt may be merely
        claimed: `armed` comes before the wire.

        Raises:
            StoreUnavailable: not claimed, or nobody knows; nothing may be sent.
        """
        generation, failures = reading.grant.generation, reading.grant.failures

        def decide(grant: Grant, claimer: Claimer, current: Reading) -> Decision:
            if grant.failures != failures:
                # Somebody tried meanwhile and failed: it may not be due any more.
                return Unchanged(why=Why.MOVED_ON)
            return claim_refresh(grant, claimer, generation=generation, now=current.now)

        return await self.claim(reading, Claim(kind=AttemptKind.REFRESH, decide=decide))

    async def claim(self, reading: Reading, claim: Claim) -> Claimed | Reading:
        """Claims as told; see `claim_refresh`.

        Raises:
            StoreUnavailable, BesideNotAppliedError: nothing may be sent.
        """
        tenant, attempt_id = reading.grant.tenant, self._chance.identifier()
        age = asyncio.get_running_loop().time() - reading.answered_at
        current: Reading | None = reading if age < READING_LASTS else None
        for left in reversed(range(CLAIM_TRIES)):
            try:
                current = current or await self._rows.read(tenant)
                return await self._claim(current, claim, attempt_id)
            except StoreUnavailable:
                if not left:
                    raise
            current = None
            await asyncio.sleep(RETRY_PAUSE)
        raise AssertionError  # pragma: no cover - the last try returns or raises

    async def _claim(self, reading: Reading, claim: Claim, attempt_id: str) -> Claimed | Reading:
        started, began = reading, asyncio.get_running_loop().time()

        def propose(current: Reading) -> Proposal:
            nonlocal started
            self._refuse_when_stopping(current.grant.tenant)
            started = current
            claimer = Claimer(
                attempt_id=attempt_id,
                kind=claim.kind,
                replica=self._replica,
                deadline=current.now + self._times.span,
                not_before=current.claims_from,
            )
            return _proposal(claim, claim.decide(current.grant, claimer, current), current)

        written = await self._rows.write(reading, propose, Act(call="claim"))
        attempt = written.reading.grant.attempt
        if written.not_allowed is not None or attempt is None:
            return written.reading
        self._observe(written.reading.grant, attempt, began)
        # Own time counts from before the read on which the deadline was reckoned.
        return Claimed(
            reading=written.reading,
            attempt=attempt,
            started_at=started.asked_at,
            leapt_from=-math.inf if started.leapt_from is None else started.leapt_from,
        )

    def _refuse_when_stopping(self, tenant: str) -> None:
        # Asked at each decision: one that was lost to a conflict comes again, much later.
        if self._is_stopping:
            raise RefreshInProgress("the broker is stopping", tenant=tenant)

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
        if self._is_stopping:
            return await self._let_go(claimed, started)

        def propose(current: Reading) -> Proposal:
            nonlocal started
            self._refuse_when_stopping(current.grant.tenant)
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

    def _observe(self, grant: Grant, attempt: Attempt, began: float) -> None:
        took = asyncio.get_running_loop().time() - began
        self._observer.observe(
            AttemptClaimed(
                tenant=grant.tenant,
                kind=attempt.kind,
                number=attempt.number,
                base_generation=attempt.base_generation,
                doubt=grant.doubt,
                duration=timedelta(seconds=took),
            )
        )


def blind_tries(quarantine: timedelta) -> int:
    """Returns how often it comes back in that time: a quarantine each, and the pause after it."""
    tries, gone = 0, timedelta(0)
    while gone < BLIND_FOR:
        tries += 1
        gone += quarantine + delay(tries)
    return tries


def _proposal(claim: Claim, decision: Decision, current: Reading) -> Proposal:
    if not isinstance(decision, Changed):
        return Proposal(decision=decision)
    attempt, before = decision.after.attempt, current.grant.attempt
    # A claim that is tried again after a lost acknowledgement has written it already.
    is_again = (
        before is not None and attempt is not None and before.attempt_id == attempt.attempt_id
    )
    beside = claim.beside(attempt) if claim.beside and attempt and not is_again else None
    return Proposal(decision=decision, ended=_abandoned(current, attempt), beside=beside)


def _abandoned(current: Reading, claimed: Attempt | None) -> AttemptRecord | None:
    """Returns the line of an attempt that its owner never settled, now that it is replaced."""
    replaced = current.grant.attempt
    if replaced is None or replaced.phase is AttemptPhase.UNKNOWN:
        return None
    if claimed is not None and replaced.attempt_id == claimed.attempt_id:
        return None
    return AttemptRecord(
        tenant=current.grant.tenant,
        attempt=replaced,
        outcome=AttemptOutcome.ABANDONED,
        ended_at=current.now,
    )


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
