"""What answers mean for all grants together: evidence for the guard, and for the breaker.

None of it stands in the way of a pair: answers are noted after their settlement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from broker.domain import guard as guards
from broker.domain.answers import Answer, Refused
from broker.domain.breaker import after_answer, is_worth_weighing
from broker.domain.errors import StoreUnavailable
from broker.domain.evidence import Evidence
from broker.domain.facts import EvidenceUnread
from broker.domain.fleet import FleetState
from broker.domain.grant import Doubt
from broker.ports import AnsweredRefresh, FleetStore, Observer
from broker.service.endings import error_of, outcome_of
from broker.service.fleet import Fleet
from broker.service.settle import Claimed


class Weighing:
    """Weighs the answers that this replica gets."""

    def __init__(
        self, fleet: Fleet, store: FleetStore, observer: Observer, *, hold_for: timedelta
    ) -> None:
        """`hold_for`: how long the guard waits for an engineer."""
        self._fleet = fleet
        self._store = store
        self._observer = observer
        self._hold_for = hold_for
        self._unweighed: tuple[Claimed, Refused] | None = None

    async def weigh_refusal(self, claimed: Claimed, refused: Refused) -> None:
        """Lets the guard hold where this refusal is one too many; before it is settled.

        And after it: refusals that come together see each other's lines only then, and what was
        believed is held back. How the guard stands is read anew, since a grant that is believed
        dead in the seconds until the next poll has its customer called. Never raises.
        """
        if not await self._weighed(claimed, refused):
            self._unweighed = claimed, refused

    async def _weighed(self, claimed: Claimed, refused: Refused) -> bool:
        """Weighs a refusal, and says whether PostgreSQL let it."""
        while await self._poll_if_possible(claimed):
            if self._fleet.is_holding():
                return True
            counted_from = self._fleet.guard.counted_from
            evidence = await self._evidence(claimed, refused)
            if evidence is None or not guards.trips(evidence):
                return evidence is not None
            try:
                await self._fleet.decide(self._holding(counted_from))
            except StoreUnavailable:
                self._report_unread(claimed)
                return False
        return False

    def _holding(
        self, counted_from: datetime | None
    ) -> Callable[[FleetState, datetime], FleetState]:
        """Returns the change to a guard that holds, for evidence that was counted from then on."""

        def held(state: FleetState, now: datetime) -> FleetState:
            if state.guard.counted_from != counted_from:
                return state  # decided on since, which stands: what is left is weighed anew
            guard = guards.hold(state.guard, now=now, hold_for=self._hold_for)
            return replace(state, guard=guard)

        return held

    async def weigh_what_is_owed(self) -> None:
        """Weighs a refusal that PostgreSQL could not be asked about. Never raises."""
        owed, self._unweighed = self._unweighed, None
        if owed is not None:
            await self.weigh_refusal(*owed)

    async def note(self, claimed: Claimed, answer: Answer) -> None:
        """Lets the breaker open, stay or close by an answer. Never raises."""
        if self._fleet.breaker is None and not is_worth_weighing(answer):
            return
        evidence = await self._evidence(claimed, answer)
        if evidence is None:
            return

        def weighed(state: FleetState, _now: datetime) -> FleetState:
            breaker = after_answer(
                state.breaker, answer, evidence, claimed_at=claimed.attempt.started_at
            )
            return replace(state, breaker=breaker)

        try:
            await self._fleet.change(weighed)
        except StoreUnavailable:
            self._report_unread(claimed)

    async def _poll_if_possible(self, claimed: Claimed) -> bool:
        try:
            await self._fleet.poll()
        except StoreUnavailable:
            self._report_unread(claimed)
            return False
        return True

    async def _evidence(self, claimed: Claimed, answer: Answer) -> Evidence | None:
        answered = AnsweredRefresh(
            tenant=claimed.reading.grant.tenant,
            number=claimed.attempt.number,
            outcome=outcome_of(answer),
            error=error_of(answer),
            was_in_doubt=claimed.reading.grant.doubt is not Doubt.NONE,
        )
        try:
            return await self._store.weigh(answered)
        except StoreUnavailable:
            self._report_unread(claimed)
            return None

    def _report_unread(self, claimed: Claimed) -> None:
        tenant = claimed.reading.grant.tenant
        self._observer.observe(EvidenceUnread(tenant=tenant, number=claimed.attempt.number))
