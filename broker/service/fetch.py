"""A flight's work: from a tenant to a row with a fresh token, whoever must refresh it.

read ─► decide_next ─► serve
▲    ├────► refuse
│    ├────► wait for another replica, read again
└────┴────► lease, read again, refresh
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, assert_never

from broker.domain.errors import RefreshInProgress, StoreUnavailable
from broker.domain.facts import LeaseAnswered, LeaseOutcome, Source, WaitedForReplica
from broker.domain.next_step import NextStep, Refresh, Refuse, Serve, Wait, decide_next
from broker.ports import Leases, Observer
from broker.service.memory import Memory
from broker.service.news import News, moved_to
from broker.service.refresh import Refresher
from broker.service.rows import Reading
from broker.service.writing_back import WritingBack

POLL: Final = 0.25
"""Seconds until the row is read again while another replica is at it. News mostly comes first; a
caller without news waits no longer than that, and PostgreSQL is asked little."""

LEASE_PATIENCE: Final = 4
"""How often a lease that is held elsewhere is waited for, before going on without it: the claim
decides, and a lease that a dead replica left must not hold a customer up for its whole life."""


@dataclass(slots=True, kw_only=True)
class Errand:
    """What one flight wants, and how far it got."""

    tenant: str
    above_generation: int
    overdue: asyncio.Future[None]
    """Done when Pleo takes longer than a whole request may."""

    has_turn: bool = False
    """Whether it is planned work, which has a place at the turnstile and takes no lease."""

    source: Source = Source.DATABASE
    lease_waits: int = 0


class Fetcher:
    """Gets grants fresh. Runs in tasks of the app that nobody cancels."""

    def __init__(
        self,
        rows: WritingBack,
        memory: Memory,
        refresher: Refresher,
        leases: Leases,
        news: News,
        *,
        longest: timedelta,
    ) -> None:
        """`rows`: what PostgreSQL has lost comes back first.

        `longest`: then it gives up, as its callers have.
        """
        self._rows = rows
        self._memory = memory
        self._refresher = refresher
        self._leases = leases
        self._news = news
        self._longest = longest.total_seconds()

    async def fetch(self, errand: Errand, observer: Observer) -> Reading:
        """Returns a row whose token is fresh.

        Raises:
            BrokerError: there is no fresh token; its class says why.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._longest
        reading = await self._read(errand)
        while True:
            step = _next(errand, reading)
            if isinstance(step, Wait | Refresh) and loop.time() >= give_up_at:
                raise RefreshInProgress("nobody got it fresh: ask again", tenant=errand.tenant)
            match step:
                case Serve():
                    return reading
                case Refuse(error=error):
                    raise error
                case Wait():
                    reading = await self._after_news(errand, observer)
                case Refresh() if errand.has_turn:
                    # Nobody waits for it, so that there is no herd to spare; the claim decides.
                    after = await self._attempt(errand, reading)
                    # On the same row it would decide the same, and nobody else would get to run:
                    # a deadline may have passed only since it was read.
                    reading = await self._read(errand) if after is reading else after
                case Refresh():
                    reading = await self._refresh(errand, observer)
                case _:
                    assert_never(step)

    async def _refresh(self, errand: Errand, observer: Observer) -> Reading:
        asked_at = asyncio.get_running_loop().time()
        async with self._leases.hold(errand.tenant) as outcome:
            took = _since(asked_at)
            observer.observe(LeaseAnswered(tenant=errand.tenant, outcome=outcome, duration=took))
            if outcome is not LeaseOutcome.HELD:
                return await self._refresh_alone(errand)
        errand.lease_waits += 1
        if errand.lease_waits <= LEASE_PATIENCE:
            return await self._after_news(errand, observer)
        # Read anew: decided on an old row, a deadline that passed meanwhile would go unseen.
        return await self._refresh_alone(errand)

    async def _refresh_alone(self, errand: Errand) -> Reading:
        # Whoever held the lease before may have refreshed the grant.
        reading = await self._read(errand)
        if not isinstance(_next(errand, reading), Refresh):
            return reading
        return await self._attempt(errand, reading)

    async def _attempt(self, errand: Errand, reading: Reading) -> Reading:
        after = await self._refresher.refresh(reading, errand.overdue, has_turn=errand.has_turn)
        self._memory.keep(after)
        if after.grant.generation > reading.grant.generation:
            errand.source = Source.REFRESH
        if _has_moved(reading, after):
            await self._news.announce(moved_to(after))
        return after

    async def _after_news(self, errand: Errand, observer: Observer) -> Reading:
        began = asyncio.get_running_loop().time()
        await self._news.wait(errand.tenant, POLL)
        observer.observe(WaitedForReplica(tenant=errand.tenant, duration=_since(began)))
        return await self._read(errand)

    async def _read(self, errand: Errand) -> Reading:
        reading = await self._rows.read(errand.tenant)
        self._memory.keep(reading)
        return reading


def _since(began: float) -> timedelta:
    return timedelta(seconds=asyncio.get_running_loop().time() - began)


def _next(errand: Errand, reading: Reading) -> NextStep:
    step = decide_next(
        reading.grant, above_generation=errand.above_generation, now=reading.latest_now()
    )
    if isinstance(step, Refresh) and reading.is_held_up():
        return Refuse(error=_held_up(errand.tenant, reading))
    return step


def _held_up(tenant: str, reading: Reading) -> StoreUnavailable:
    """Returns what callers without a living token are told: waiting here would only cost them."""
    return StoreUnavailable(
        "PostgreSQL may have lost commits: nothing is presented while what was lost may be under "
        "way",
        tenant=tenant,
        retry_after=(reading.claims_from or reading.now) - reading.now,
        metadata={"code": "COMMITS_LOST"},
    )


def _has_moved(before: Reading, after: Reading) -> bool:
    return (before.grant.generation, before.grant.state) != (
        after.grant.generation,
        after.grant.state,
    )
