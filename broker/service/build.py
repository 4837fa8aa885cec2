"""Puts the service together from the ports: the same for production, tests and simulation.

Inside out, so that nothing exists half made. Whoever builds it runs `Service.loops()` in tasks and
waits for `settled()` before taking the ports away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.grant import Grant
from broker.domain.times import AttemptTimes
from broker.ports import (
    Announcements,
    Chance,
    ConsentStore,
    Escrows,
    GrantStore,
    Leases,
    Observer,
    Provider,
)
from broker.service.adoption import SWEEP_SECONDS, Adoption
from broker.service.claim import Claims
from broker.service.completing import Completing
from broker.service.consenting import Consenting, longest_wait
from broker.service.exchange import Exchanger
from broker.service.facade import Broker
from broker.service.fetch import Fetcher
from broker.service.flights import Flights
from broker.service.grants import Grants
from broker.service.holdings import Holdings
from broker.service.importing import Importing
from broker.service.loops import repeat
from broker.service.memory import Memory
from broker.service.messages import ServedToken
from broker.service.news import POLL_SECONDS, News
from broker.service.obtain import Obtain
from broker.service.refresh import Refresher
from broker.service.rejections import Rejections
from broker.service.rows import Rows
from broker.service.safekeeping import Safekeeping
from broker.service.settle import Settler
from broker.service.starting import Registration, Starting
from broker.service.usage import FLUSH_SECONDS, Usage
from broker.service.wire import Wire

LANDING_SECONDS: Final = 1.0
"""For announcing and answering, once a pair is stored: a few timeouts of Redis."""

OBTAIN_BUDGET: Final = timedelta(seconds=30)
"""For a token that the broker itself needs: what a caller without a deadline gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The outside."""

    store: GrantStore
    consents: ConsentStore
    leases: Leases
    announcements: Announcements
    escrows: Escrows
    provider: Provider
    chance: Chance
    observer: Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the settings decide."""

    replica: str
    """This process's name in rows and history."""

    registration: Registration
    http_timeout: timedelta = timedelta(seconds=10)
    renew_ahead: timedelta = timedelta(seconds=90)
    rejection_interval: timedelta = timedelta(seconds=30)
    may_delete_at_provider: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The service, running once its loops run."""

    broker: Broker
    memory: Memory
    holdings: Holdings
    claims: Claims
    adoption: Adoption
    token_flights: Flights[ServedToken]
    grant_flights: Flights[Grant]
    news: News
    usage: Usage
    observer: Observer

    def loops(self) -> dict[str, Callable[[], Coroutine[None, None, None]]]:
        """Returns what must run in the background, by name; each until it is cancelled."""
        return {
            "announcements": lambda: self._repeat("announcements", self.news.listen, POLL_SECONDS),
            "changes": lambda: self._repeat("changes", self.news.poll, POLL_SECONDS),
            "usage": lambda: self._repeat("usage", self.usage.flush, FLUSH_SECONDS),
            "escrows": lambda: self._repeat("escrows", self.adoption.sweep, SWEEP_SECONDS),
        }

    async def _repeat(self, name: str, turn: Callable[[], Awaitable[None]], pause: float) -> None:
        await repeat(name, turn, pause=pause, observer=self.observer)

    async def settled(self, *, patience: float) -> None:
        """Waits until whatever was sent to Pleo is settled (laws 3 and 8).

        Claims nothing from now on. Flights that hold nothing are waited for at most `patience`
        seconds; what is on the wire, or has a pair that is neither stored nor in escrow, for as
        long as it takes.
        """
        self.claims.stop()
        await self._landed(patience)
        await self.holdings.none_left()
        # Whose pair has just been stored still tells its callers.
        await self._landed(LANDING_SECONDS)
        self.token_flights.abandon()
        self.grant_flights.abandon()

    async def _landed(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self.token_flights.settled()
                await self.grant_flights.settled()
        except TimeoutError:
            return  # they wait for others, for a quarantine, or with their pair in escrow


def build_service(ports: Ports, options: Options, task_group: asyncio.TaskGroup) -> Service:
    """Builds it; flights will be tasks of `task_group`."""
    rows, memory, holdings = Rows(ports.store), Memory(), Holdings()
    news = News(ports.store, ports.announcements, memory, ports.observer)
    adoption = Adoption(ports.escrows, rows, memory, news, ports.observer)
    consenting = _consenting(ports, options, adoption, memory=memory, holdings=holdings, news=news)
    token_flights = Flights[ServedToken](task_group, ports.observer)
    grant_flights = Flights[Grant](task_group, ports.observer)
    usage = Usage(ports.store)
    obtain = _obtain(ports, options, consenting, flights=token_flights)
    broker = Broker(
        obtain=obtain,
        usage=usage,
        starting=Starting(
            consents=ports.consents,
            rows=rows,
            provider=ports.provider,
            registration=options.registration,
            chance=ports.chance,
        ),
        completing=Completing(
            consents=ports.consents,
            rows=rows,
            exchanger=Exchanger(consenting),
            flights=grant_flights,
            news=news,
            longest_wait=longest_wait(consenting.times),
        ),
        importing=Importing(consents=ports.consents, consenting=consenting, flights=grant_flights),
        grants=_grants(ports, options, consenting, obtain=obtain),
    )
    return Service(
        broker=broker,
        memory=memory,
        holdings=holdings,
        claims=consenting.claims,
        adoption=adoption,
        token_flights=token_flights,
        grant_flights=grant_flights,
        news=news,
        usage=usage,
        observer=ports.observer,
    )


def _consenting(
    ports: Ports,
    options: Options,
    adoption: Adoption,
    *,
    memory: Memory,
    holdings: Holdings,
    news: News,
) -> Consenting:
    rows, times = Rows(ports.store), AttemptTimes(http_timeout=options.http_timeout)
    claims = Claims(
        rows, times, ports.chance, ports.observer, adoption=adoption, replica=options.replica
    )
    settler = Settler(
        rows,
        holdings,
        ports.observer,
        ports.chance,
        safekeeping=Safekeeping(ports.escrows, memory, ports.observer),
        renew_ahead=options.renew_ahead,
    )
    return Consenting(
        rows=rows,
        claims=claims,
        times=times,
        wire=Wire(ports.provider, times, holdings, ports.observer),
        settler=settler,
        memory=memory,
        news=news,
        provider=ports.provider,
        holdings=holdings,
    )


def _obtain(
    ports: Ports, options: Options, parts: Consenting, *, flights: Flights[ServedToken]
) -> Obtain:
    refresher = Refresher(parts.claims, parts.wire, parts.settler, ports.observer)
    fetcher = Fetcher(parts.rows, parts.memory, refresher, ports.leases, parts.news)
    rejections = Rejections(
        parts.rows,
        parts.memory,
        ports.provider,
        ports.observer,
        interval=options.rejection_interval,
    )
    return Obtain(parts.memory, flights, fetcher, rejections, ports.observer)


def _grants(ports: Ports, options: Options, parts: Consenting, *, obtain: Obtain) -> Grants:
    async def living(tenant: str) -> ServedToken:
        return await obtain.get_access_token(tenant, rejected_generation=None, budget=OBTAIN_BUDGET)

    return Grants(
        store=ports.store,
        rows=parts.rows,
        memory=parts.memory,
        news=parts.news,
        provider=ports.provider,
        obtain=living,
        may_delete_at_provider=options.may_delete_at_provider,
    )
