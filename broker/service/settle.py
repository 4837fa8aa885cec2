"""From Pleo's answer to the row: which write it is, and trying until PostgreSQL has taken it.

A rotated pair is tried for as long as the process lives, whatever PostgreSQL or sealing says,
because nobody else has it (law 3). What holds no pair is given up at the attempt's deadline:
whoever claims next finds an armed attempt that was never settled, and knows what that means.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from broker.domain.answers import Refused, Rotated
from broker.domain.decision import Changed, Decision
from broker.domain.errors import (
    KeyUnavailable,
    RecordUnreadable,
    StoreUnavailable,
    SubjectAlreadyConnected,
)
from broker.domain.escrow import Escrow
from broker.domain.facts import AttemptSettled, DefectMet, HistoryLost, SettlementDelayed
from broker.domain.freshness import renewal_time, settled_lifetime
from broker.domain.grant import Attempt, Grant
from broker.domain.history import AttemptOutcome, AttemptRecord
from broker.domain.refresh_writes import Issue
from broker.domain.renewal import is_late
from broker.domain.secret import RefreshToken
from broker.ports import Beside, Chance, Observer, Presentation
from broker.service.endings import error_of, failing, outcome_of, refusing, storing
from broker.service.holdings import Hold, Holdings
from broker.service.rows import Act, BesideNotAppliedError, Proposal, Reading, Rows, Written
from broker.service.safekeeping import KeptSafe, Safekeeping

FIRST_PAUSE: Final = 0.1
"""Seconds: PostgreSQL may only have dropped one connection."""

LONGEST_PAUSE: Final = 2.0
"""Seconds from the beginning of a try to that of the next, if it did not take longer: a pair that
only this process holds should not wait long once PostgreSQL is back. Well within
`domain.times.AttemptTimes.retry_within`, which a try that hangs needs to itself."""

_FORESEEN: Final = (StoreUnavailable, KeyUnavailable, RecordUnreadable)
"""What the store says when it takes nothing now, and may later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An attempt of ours, committed (law 2)."""

    reading: Reading
    """The row as the claim, or the arming, wrote it."""

    attempt: Attempt
    started_at: float
    """The event loop's clock before the read that the deadline counts from."""

    leapt_from: float = -math.inf
    """Where PostgreSQL's clock leapt over the deadline of the attempt that was on the row before:
    when this process first saw that one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ends: the write, and what the history says."""

    decide: Callable[[Reading], Decision]
    outcome: AttemptOutcome
    presentation: Presentation | None = None
    beside: Beside | None = None
    holds_pair: bool = False
    escrow: Escrow | None = None
    """What becomes of the pair where PostgreSQL does not take it."""

    error: str = ""
    act: Act | None = None
    """Who asked for it, for the events; None: the broker concluded it itself."""

    tells_stale: bool = False
    """Whether a pair that came for nothing has no other line in the history than this one."""


class Settler:
    """Settles attempts."""

    def __init__(
        self,
        rows: Rows,
        holdings: Holdings,
        observer: Observer,
        chance: Chance,
        *,
        safekeeping: Safekeeping,
        is_holding: Callable[[], bool],
        renew_ahead: timedelta,
    ) -> None:
        """`is_holding`: the fleet guard doubts refusals. `renew_ahead`: planned, before expiry."""
        self._is_holding = is_holding
        self._safekeeping = safekeeping
        self._rows = rows
        self._holdings = holdings
        self._observer = observer
        self._chance = chance
        self._renew_ahead = renew_ahead

    def issue(
        self, claimed: Claimed, rotated: Rotated, *, sent_at: float, presented: RefreshToken
    ) -> Issue:
        """Returns what was issued with its times: they count from when the request was sent."""
        grant = claimed.reading.grant
        lifetime = settled_lifetime(rotated.expires_in, grant.lifetime)
        sent = claimed.reading.earliest(sent_at)
        # Without an access token the pair is due at once.
        expires_at = sent + lifetime if rotated.access_token else sent
        return Issue(
            access_token=rotated.access_token,
            refresh_token=rotated.refresh_token or presented,
            token_type=rotated.token_type,
            lifetime=lifetime,
            expires_at=expires_at,
            renew_at=renewal_time(
                expires_at,
                lifetime=lifetime,
                ahead=self._renew_ahead,
                jitter=self._chance.jitter(),
                was_late=is_late(grant, sent),
            ),
            scopes=rotated.scopes,
        )

    def refresh_ending(
        self, claimed: Claimed, presentation: Presentation, presented: RefreshToken
    ) -> Ending:
        """Returns how a refresh ends, by Pleo's answer."""
        mine, answer = claimed.attempt, presentation.answer
        escrow = None
        match answer:
            case Rotated():
                sent_at = presentation.sent_at or claimed.started_at
                issued = self.issue(claimed, answer, sent_at=sent_at, presented=presented)
                decide = storing(mine, issued, claimed=claimed.reading.grant)
                escrow = _escrow(claimed, issued)
            case Refused(error=error):
                decide = refusing(mine, error, is_holding=self._is_holding)
            case _:
                decide = failing(mine, answer)
        return Ending(
            decide=decide,
            outcome=outcome_of(answer),
            presentation=presentation,
            holds_pair=isinstance(answer, Rotated),
            escrow=escrow,
            error=error_of(answer),
            tells_stale=isinstance(answer, Rotated),
        )

    def holding(self) -> AbstractContextManager[Hold]:
        """Holds up shutdown for an answer that is not to be settled yet."""
        return self._holdings.hold()

    async def settle(self, claimed: Claimed, ending: Ending) -> Written:
        """Commits how the attempt ended. A pair in hand is kept until it is committed.

        Where PostgreSQL does not take it, a copy goes into escrow, and once that is acknowledged
        the pair no longer holds up shutdown.

        Raises:
            StoreUnavailable: PostgreSQL did not take it before the attempt's deadline; no pair was
            held. KeyUnavailable, RecordUnreadable: no pair was held. SubjectAlreadyConnected,
            BesideNotAppliedError: as `Rows.write`, pair or not.
        """
        began = asyncio.get_running_loop().time()
        with self._holdings.hold() as hold:
            written = await self._until_taken(claimed, ending, hold)
        if ending.tells_stale and written.is_stale:
            await self._tell_stale(claimed, ending, written.reading)
        self._observer.observe(
            AttemptSettled(
                tenant=written.reading.grant.tenant,
                number=claimed.attempt.number,
                outcome=ending.outcome,
                generation=written.reading.grant.generation,
                duration=timedelta(seconds=asyncio.get_running_loop().time() - began),
                not_allowed=written.not_allowed,
            )
        )
        return written

    async def _until_taken(self, claimed: Claimed, ending: Ending, hold: Hold) -> Written:
        reading: Reading | None = claimed.reading
        pause, tries, is_defect_told = FIRST_PAUSE, 0, False
        safe, loop = KeptSafe(self._safekeeping, ending.escrow, hold), asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                reading = reading or await self._rows.read(claimed.reading.grant.tenant)
                written = await self._write(reading, claimed, ending)
            except (SubjectAlreadyConnected, BesideNotAppliedError):
                await safe.discard()
                raise  # it is not to be stored; the caller knows what that means
            except Exception as error:
                # Whatever a driver raises, nobody else has the pair (law 3).
                if not _is_tried_again(claimed, ending, error):
                    raise
                is_defect_told = is_defect_told or self._report_defect(error)
            else:
                stored = written.reading.grant
                # First: a failover while Redis is waited for would find the pair in no place. Nor
                # what a pair was dropped for, a revocation for instance, which may be lost as well.
                is_ours = stored.pair_attempt == claimed.attempt.number
                if ending.holds_pair and (is_ours or written.is_stale):
                    self._safekeeping.remember(stored)
                await safe.discard()
                return written
            tries += 1
            self._report_delay(claimed, ending, tries)
            await safe.keep(claimed.reading)
            # The acknowledgement may have been lost: the row is read again before the next try.
            reading = None
            await asyncio.sleep(max(FIRST_PAUSE, began + pause - loop.time()))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _write(self, reading: Reading, claimed: Claimed, ending: Ending) -> Written:
        def propose(current: Reading) -> Proposal:
            decision = ending.decide(current)
            if not isinstance(decision, Changed):
                return Proposal(decision=decision)
            ended = _line(claimed, ending, current, decision.after)
            return Proposal(decision=decision, ended=ended, beside=ending.beside)

        call = f"{claimed.attempt.kind.value} {ending.outcome.value}"
        act = ending.act or Act(call=call, reason=ending.error)
        return await self._rows.write(reading, propose, act)

    async def _tell_stale(self, claimed: Claimed, ending: Ending, reading: Reading) -> None:
        # Tried once: nobody waits for PostgreSQL over a line about tokens that nobody needs.
        line = _line(claimed, replace(ending, outcome=AttemptOutcome.STALE), reading, reading.grant)
        try:
            await self._rows.note(reading, line)
        except StoreUnavailable as error:
            self._observer.observe(
                HistoryLost(tenant=line.tenant, number=line.attempt.number, error=error.reason)
            )

    def _report_defect(self, error: Exception) -> bool:
        """Reports what no rule foresaw; says whether it did."""
        if isinstance(error, _FORESEEN):
            return False
        defect_id = self._chance.identifier()
        self._observer.observe(DefectMet(defect_id=defect_id, where="settle", error=error))
        return True

    def _report_delay(self, claimed: Claimed, ending: Ending, tries: int) -> None:
        self._observer.observe(
            SettlementDelayed(
                tenant=claimed.reading.grant.tenant,
                number=claimed.attempt.number,
                holds_pair=ending.holds_pair,
                tries=tries,
            )
        )


def _escrow(claimed: Claimed, issued: Issue) -> Escrow:
    grant = claimed.reading.grant
    return Escrow(
        tenant=grant.tenant,
        attempt=claimed.attempt,
        issued=issued,
        consent_attempt=grant.consent_attempt,
    )


def _is_tried_again(claimed: Claimed, ending: Ending, error: Exception) -> bool:
    if ending.holds_pair:
        return True
    return isinstance(error, StoreUnavailable) and not _is_over(claimed)


def _is_over(claimed: Claimed) -> bool:
    elapsed = asyncio.get_running_loop().time() - claimed.started_at
    return elapsed >= (claimed.attempt.deadline - claimed.reading.now).total_seconds()


def _line(claimed: Claimed, ending: Ending, current: Reading, after: Grant) -> AttemptRecord:
    told = ending.presentation
    now = asyncio.get_running_loop().time()
    sent_at = told.sent_at if told else None
    return AttemptRecord(
        tenant=current.grant.tenant,
        attempt=claimed.attempt,
        outcome=ending.outcome,
        ended_at=current.latest_now(),
        http_status=told.http_status if told else None,
        error=ending.error,
        duration=None if sent_at is None else timedelta(seconds=now - sent_at),
        generation_after=after.generation,
    )
