"""Claiming the right to present: one attempt at a time, whoever asks (law 1)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.claims import Claimer
from broker.domain.decision import Changed, Decision, Unchanged, Why
from broker.domain.errors import RefreshInProgress, StoreUnavailable
from broker.domain.facts import AttemptClaimed
from broker.domain.grant import (
    Attempt,
    AttemptKind,
    AttemptPhase,
    Grant,
)
from broker.domain.history import AttemptOutcome, AttemptRecord
from broker.domain.refresh_writes import claim_refresh
from broker.domain.times import AttemptTimes
from broker.ports import Beside, Chance, Observer
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
        replica: str,
    ) -> None:
        """`replica`: this process's name in rows and history."""
        self._rows = rows
        self._times = times
        self._chance = chance
        self._observer = observer
        self._replica = replica
        self.is_stopping = False

    def stop(self) -> None:
        """Claims nothing any more: what would be sent now might not be settled in time."""
        self.is_stopping = True

    async def claim_refresh(self, reading: Reading) -> Claimed | Reading:
        """Claims a refresh of the generation that was read.

        Returns the row instead when the claim was not allowed any more. The attempt may be merely
        claimed: `Arming.armed` comes before the wire.

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
            self.refuse_when_stopping(current.grant.tenant)
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

    def refuse_when_stopping(self, tenant: str) -> None:
        """Ends what would still claim or arm.

        Raises:
            RefreshInProgress: the broker is stopping.
        """
        # Asked at each decision: one that was lost to a conflict comes again, much later.
        if self.is_stopping:
            raise RefreshInProgress("the broker is stopping", tenant=tenant)

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
