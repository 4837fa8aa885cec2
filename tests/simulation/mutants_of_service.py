"""The service with one rule broken, one at a time; as `mutants_of_writes.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from broker.domain.answers import Unknown
from broker.domain.claims import Claimer, new_attempt
from broker.domain.decision import Changed
from broker.domain.errors import RefreshInProgress, StoreUnavailable
from broker.domain.escrow import Escrow
from broker.domain.grant import Attempt, AttemptKind, AttemptPhase, Grant
from broker.domain.past import Past
from broker.domain.requests import TokenRequest
from broker.ports import Presentation, WireWindow
from broker.service import arming, claim, obtain, rows, settle, wire
from broker.service.adoption import Adoption
from broker.service.flights import Flight, Flights
from broker.service.messages import ServedToken
from broker.service.rows import Reading, Written
from broker.service.waiting import wait_for
from broker.service.writing_back import WritingBack
from simulation.mutating import replaced
from support.fake_escrows import FakeEscrows
from support.fake_provider import FakeProvider


def own_time_is_not_checked() -> AbstractContextManager[None]:
    return replaced((wire, "SEND_BUDGET", timedelta(days=1)))


def there_is_no_quarantine() -> AbstractContextManager[None]:
    async def at_once(_self: arming.Arming, _claimed: settle.Claimed) -> None:
        return None

    return replaced((arming.Arming, "_quarantine", at_once))


def escrows_are_never_looked_for() -> AbstractContextManager[None]:
    async def nothing(_self: Adoption, _tenant: str) -> Sequence[Escrow]:
        return ()

    async def no_sweep(_self: Adoption) -> None:
        return None

    return replaced((Adoption, "find", nothing), (Adoption, "sweep", no_sweep))


def redis_unreachable_is_no_escrow() -> AbstractContextManager[None]:
    find = Adoption.find

    async def hopeful(self: Adoption, tenant: str) -> Sequence[Escrow]:
        return await find(self, tenant) or ()

    return replaced((Adoption, "find", hopeful))


def pair_is_dropped_when_postgresql_refuses() -> AbstractContextManager[None]:
    def never(_claimed: settle.Claimed, _ending: settle.Ending, _error: Exception) -> bool:
        return False

    return replaced((settle, "_is_tried_again", never))


def lost_acknowledgement_is_a_commit() -> AbstractContextManager[None]:
    write: Callable[..., Awaitable[Written]] = settle.Settler._write  # noqa: SLF001 - as above

    async def hopeful(
        self: settle.Settler, reading: Reading, claimed: settle.Claimed, ending: settle.Ending
    ) -> Written:
        with suppress(StoreUnavailable):
            return await write(self, reading, claimed, ending)
        decision = ending.decide(reading)
        after = decision.after if isinstance(decision, Changed) else reading.grant
        snapshot = replace(reading.snapshot, grant=after)
        return Written(reading=replace(reading, snapshot=snapshot), not_allowed=None)

    return replaced((settle.Settler, "_write", hopeful))


def there_is_one_escrow_for_each_tenant() -> AbstractContextManager[None]:
    async def put(self: FakeEscrows, escrow: Escrow) -> bool:
        if not self._redis.is_reachable:
            return False
        self._redis.escrows[(escrow.tenant, 0)] = escrow
        return self._redis.is_answering

    async def drop(self: FakeEscrows, escrow: Escrow) -> None:
        if self._redis.is_reachable:
            self._redis.escrows.pop((escrow.tenant, 0), None)

    return replaced((FakeEscrows, "put", put), (FakeEscrows, "drop", drop))


def escrow_is_taken_out_before_the_commit() -> AbstractContextManager[None]:
    adopt = Adoption.adopt

    async def take(self: Adoption, escrow: Escrow, *, adopter: Attempt | None = None) -> Reading:
        await self._escrows.drop(escrow)
        return await adopt(self, escrow, adopter=adopter)

    return replaced((Adoption, "adopt", take))


def a_callers_end_is_the_refreshs_end() -> AbstractContextManager[None]:
    start: Callable[..., Flight[ServedToken]] = Flights._start  # noqa: SLF001 - as above
    tasks: dict[Flight[ServedToken], asyncio.Task[None]] = {}

    def tied(
        self: Flights[ServedToken], key: Hashable, tenant: str, work: object
    ) -> Flight[ServedToken]:
        known = set(self._running)
        flight = start(self, key, tenant, work)
        (tasks[flight],) = self._running - known
        return flight

    async def wait(flight: Flight[ServedToken], *circumstances: Any) -> ServedToken:  # noqa: ANN401 - handed on
        try:
            return await wait_for(flight, *circumstances)
        except RefreshInProgress:
            tasks[flight].cancel()
            raise

    return replaced((Flights, "_start", tied), (obtain, "wait_for", wait))


def exchange_takes_no_claim() -> AbstractContextManager[None]:
    take: Callable[..., Awaitable[settle.Claimed | Reading]] = claim.Claims._claim  # noqa: SLF001

    async def pretend(
        self: claim.Claims, reading: Reading, wanted: claim.Claim, attempt_id: str
    ) -> settle.Claimed | Reading:
        if wanted.kind is AttemptKind.REFRESH:
            return await take(self, reading, wanted, attempt_id)
        deadline = reading.now + self._times.span
        claimer = Claimer(
            attempt_id=attempt_id, kind=wanted.kind, replica=self._replica, deadline=deadline
        )
        attempt = new_attempt(reading.grant, claimer, AttemptPhase.ARMED, reading.now)
        return settle.Claimed(reading=reading, attempt=attempt, started_at=reading.asked_at)

    return replaced((claim.Claims, "_claim", pretend))


def escrows_are_looked_for_before_arming_only() -> AbstractContextManager[None]:
    async def armed(self: arming.Arming, claimed: settle.Claimed) -> settle.Claimed | Reading:
        if claimed.attempt.phase is AttemptPhase.ARMED:
            return claimed
        await self._quarantine(claimed)
        looked = await self._unless_escrowed(claimed)
        return looked if isinstance(looked, Reading) else await self._arm(claimed)

    return replaced((arming.Arming, "armed", armed))


def escrow_that_cannot_be_adopted_is_ignored() -> AbstractContextManager[None]:
    async def look(self: arming.Arming, claimed: settle.Claimed) -> settle.Claimed | Reading:
        found = await self._adoption.find(claimed.reading.grant.tenant)
        if found is None:
            return await self._without_looking(claimed)
        for escrow in found:
            reading = await self._adoption.adopt(escrow, adopter=claimed.attempt)
            if reading.grant.pair_attempt == escrow.attempt.number:
                return await self._let_go(claimed, reading)
        return claimed

    return replaced((arming.Arming, "_unless_escrowed", look))


def reader_forgets_an_escrow_that_postgresql_refuses() -> AbstractContextManager[None]:
    adopt = Adoption.adopt

    async def forget(self: Adoption, escrow: Escrow, *, adopter: Attempt | None = None) -> Reading:
        try:
            return await adopt(self, escrow, adopter=adopter)
        except StoreUnavailable:
            self._held.pop((escrow.tenant, escrow.attempt.number), None)
            raise

    return replaced((Adoption, "adopt", forget))


def nothing_is_written_back() -> AbstractContextManager[None]:
    async def read(self: WritingBack, tenant: str) -> Reading:
        return await self._rows.read(tenant)

    return replaced((WritingBack, "read", read))


def claims_follow_lost_commits_at_once() -> AbstractContextManager[None]:
    def never(_past: Past, *, span: timedelta, now: datetime) -> None:
        del span, now

    return replaced((rows, "claims_from", never))


def lost_commits_leave_no_doubt() -> AbstractContextManager[None]:
    def as_read(grant: Grant, _past: Past, *, span: timedelta, now: datetime) -> Grant:
        del span, now
        return grant

    return replaced((rows, "in_doubt", as_read))


def transport_retries_by_itself() -> AbstractContextManager[None]:
    present = FakeProvider.present

    async def again(self: FakeProvider, request: TokenRequest, window: WireWindow) -> Presentation:
        presentation = await present(self, request, window)
        answer = presentation.answer
        if not isinstance(answer, Unknown) or answer.code != "connection_lost":
            return presentation
        return await present(self, request, replace(window, on_sending=lambda: None))

    return replaced((FakeProvider, "present", again))
