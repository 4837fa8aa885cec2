"""The whole service once it is built: what runs in the background, and how it comes to rest.

Whoever runs it runs `loops()` in tasks, and waits for `settled()` before taking the ports away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from broker.domain.errors import StoreUnavailable
from broker.domain.facts import LoopFailed
from broker.domain.grant import Grant
from broker.ports import (
    Observer,
)
from broker.service import fleet as fleets
from broker.service import guard as guards
from broker.service.adoption import SWEEP_SECONDS, Adoption
from broker.service.at_hand import AtHand
from broker.service.canary import CanaryKeeper
from broker.service.claim import Claims
from broker.service.disclosures import FLUSH_SECONDS as DISCLOSURE_SECONDS
from broker.service.disclosures import Disclosures
from broker.service.facade import Broker
from broker.service.fleet import Fleet
from broker.service.flights import Flights
from broker.service.guard import GuardKeeper
from broker.service.holdings import Holdings
from broker.service.loops import repeat
from broker.service.memory import Memory
from broker.service.messages import ServedToken
from broker.service.news import POLL_SECONDS, News
from broker.service.renewing import Renewing
from broker.service.turnstile import Turnstile
from broker.service.usage import FLUSH_SECONDS, Usage
from broker.service.watching import Watching
from broker.service.writing_back import TURN_SECONDS, WritingBack

LANDING_SECONDS: Final = 1.0
"""For announcing and answering, once a pair is stored: a few timeouts of Redis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The service, running once its loops run."""

    broker: Broker
    at_hand: AtHand
    memory: Memory
    holdings: Holdings
    claims: Claims
    adoption: Adoption
    writing_back: WritingBack
    fleet: Fleet
    turnstile: Turnstile
    guard: GuardKeeper
    canary: CanaryKeeper
    token_flights: Flights[ServedToken]
    grant_flights: Flights[Grant]
    news: News
    usage: Usage
    watching: Watching
    renewing: Renewing
    disclosures: Disclosures
    observer: Observer

    def loops(self) -> dict[str, Callable[[], Coroutine[None, None, None]]]:
        """Returns what must run in the background, by name; each until it is cancelled."""
        return {
            "announcements": lambda: self._repeat("announcements", self.news.listen, POLL_SECONDS),
            "changes": lambda: self._repeat("changes", self.news.poll, POLL_SECONDS),
            "watches": lambda: self._repeat("watches", self.watching.run, POLL_SECONDS),
            "renewals": lambda: self._repeat("renewals", self.renewing.run, POLL_SECONDS),
            "usage": lambda: self._repeat("usage", self.usage.flush, FLUSH_SECONDS),
            "disclosures": lambda: self._repeat(
                "disclosures", self.disclosures.flush, DISCLOSURE_SECONDS
            ),
            "escrows": lambda: self._repeat("escrows", self.adoption.sweep, SWEEP_SECONDS),
            "recall": lambda: self._repeat("recall", self.writing_back.turn, TURN_SECONDS),
            "fleet": lambda: self._repeat("fleet", self.fleet.poll, fleets.POLL_SECONDS),
            "beats": lambda: self._repeat("beats", self.fleet.beat, fleets.BEAT_SECONDS),
            "guard": lambda: self._repeat("guard", self.guard.turn, guards.TURN_SECONDS),
            "canary": lambda: self._repeat("canary", self.canary.turn, guards.TURN_SECONDS),
            "tidying": lambda: self._repeat("tidying", self.guard.tidy, guards.TIDY_SECONDS),
        }

    async def _repeat(self, name: str, turn: Callable[[], Awaitable[None]], pause: float) -> None:
        await repeat(name, turn, pause=pause, observer=self.observer)

    async def settled(self, *, patience: float) -> None:
        """Waits until whatever was sent to Pleo is settled (laws 3 and 8).

        Claims nothing from now on. Flights that hold nothing are waited for at most `patience`
        seconds; what is on the wire, or has a pair that is neither stored nor in escrow, for as
        long as it takes. So for escrows of others that were read and are not stored.
        """
        self.renewing.stop()
        self.claims.stop()
        await self._landed(patience)
        await self.holdings.none_left()
        await self.adoption.kept()
        # Whose pair has just been stored still tells its callers.
        await self._landed(LANDING_SECONDS)
        self.token_flights.abandon()
        self.grant_flights.abandon()
        # Once: whoever holds up an end waits for pairs, and these are none.
        await self._write_last("disclosures", self.disclosures.flush)
        await self._write_last("usage", self.usage.flush)

    async def _write_last(self, name: str, flush: Callable[[], Awaitable[None]]) -> None:
        try:
            await flush()
        except StoreUnavailable as error:
            self.observer.observe(LoopFailed(loop=name, error=error.reason))

    async def _landed(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self.token_flights.settled()
                await self.grant_flights.settled()
        except TimeoutError:
            return  # they wait for others, for a quarantine, or with their pair in escrow
