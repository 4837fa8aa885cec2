"""Puts the service together from the ports: the same for production, tests and simulation.

Inside out, so that nothing exists half made. Whoever builds it runs `Service.loops()` in tasks and
waits for `settled()` before taking the ports away.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.errors import StoreUnavailable
from broker.domain.facts import LoopFailed
from broker.domain.grant import Grant
from broker.domain.times import AttemptTimes
from broker.ports import (
    Announcements,
    Chance,
    ConsentStore,
    Escrows,
    FleetStore,
    GrantStore,
    Leases,
    Observer,
    Provider,
    Records,
    Renewals,
)
from broker.service import fleet as fleets
from broker.service import guard as guards
from broker.service.adoption import SWEEP_SECONDS, Adoption
from broker.service.canary import CanaryKeeper
from broker.service.claim import Claims
from broker.service.completing import Completing
from broker.service.consenting import Consenting, longest_wait
from broker.service.deleting import Deleting
from broker.service.disclosures import FLUSH_SECONDS as DISCLOSURE_SECONDS
from broker.service.disclosures import Disclosures
from broker.service.exchange import Exchanger
from broker.service.explaining import Explaining
from broker.service.facade import Broker
from broker.service.fetch import Fetcher
from broker.service.fleet import Fleet
from broker.service.flights import Flights
from broker.service.grants import Grants
from broker.service.guard import GuardKeeper
from broker.service.holdings import Holdings
from broker.service.importing import Importing
from broker.service.loops import repeat
from broker.service.memory import MOST_COPIES, Memory
from broker.service.messages import ServedToken
from broker.service.news import POLL_SECONDS, News
from broker.service.obtain import Obtain
from broker.service.overseeing import Overseer
from broker.service.recall import Recall
from broker.service.refresh import Refresher
from broker.service.rejections import Rejections
from broker.service.renewing import Renewing
from broker.service.rotating import Rotating
from broker.service.rows import Rows
from broker.service.safekeeping import Safekeeping
from broker.service.settle import Settler
from broker.service.starting import Registration, Starting
from broker.service.turnstile import Turnstile
from broker.service.usage import FLUSH_SECONDS, Usage
from broker.service.watching import Watching
from broker.service.wire import Wire
from broker.service.writing_back import TURN_SECONDS, WritingBack

LANDING_SECONDS: Final = 1.0
"""For announcing and answering, once a pair is stored: a few timeouts of Redis."""

WATCH_BUDGET: Final = timedelta(seconds=3)
"""For a look at a watched token: a caller's patience. A longer refresh is told when it ends."""

OBTAIN_BUDGET: Final = timedelta(seconds=30)
"""For a token that the broker itself needs: what a caller without a deadline gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The outside."""

    store: GrantStore
    fleet: FleetStore
    renewals: Renewals
    consents: ConsentStore
    records: Records
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
    max_concurrency: int = 50
    """Refreshes at once, in this replica."""

    max_rate: int = 50
    """Refreshes a second, of all replicas."""

    max_cached_tokens: int = MOST_COPIES
    """Access tokens in memory, in this replica."""

    guard_hold: timedelta = timedelta(hours=4)
    quarantine: timedelta = timedelta(days=7)
    """How long what the guard gave up stays sealed."""

    build: str = ""
    """The broker's version, for the other replicas."""

    may_delete_at_provider: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The service, running once its loops run."""

    broker: Broker
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
        await self._write_disclosures()

    async def _write_disclosures(self) -> None:
        # Once: whoever holds up an end waits for pairs, and this is not one.
        try:
            await self.disclosures.flush()
        except StoreUnavailable as error:
            self.observer.observe(LoopFailed(loop="disclosures", error=error.reason))

    async def _landed(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self.token_flights.settled()
                await self.grant_flights.settled()
        except TimeoutError:
            return  # they wait for others, for a quarantine, or with their pair in escrow


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What everything else is built on, one each."""

    rows: Rows
    memory: Memory
    holdings: Holdings
    news: News
    recall: Recall
    adoption: Adoption
    writing_back: WritingBack
    times: AttemptTimes
    fleet: Fleet
    turnstile: Turnstile


def build_service(ports: Ports, options: Options, task_group: asyncio.TaskGroup) -> Service:
    """Builds it; flights will be tasks of `task_group`."""
    base = _base(ports, options)
    consenting = _consenting(ports, options, base)
    observer, chance, numbers = ports.observer, ports.chance, itertools.count(1)
    token_flights = Flights[ServedToken](task_group, observer, chance=chance, numbers=numbers)
    grant_flights = Flights[Grant](task_group, observer, chance=chance, numbers=numbers)
    fetcher = _fetcher(ports, consenting, base=base)
    obtain = _obtain(ports, options, consenting, fetcher=fetcher, flights=token_flights)
    grants = _grants(ports, options, consenting, obtain=obtain, recall=base.recall)
    guard, canary = _guarding(ports, options, base, refresh=grants.obtain)
    usage, disclosures = Usage(ports.store), Disclosures(ports.records)
    watching = _watching(obtain, usage, base.news)
    broker = Broker(
        obtain=obtain,
        usage=usage,
        disclosures=disclosures,
        watching=watching,
        starting=Starting(
            consents=ports.consents,
            rows=base.rows,
            provider=ports.provider,
            registration=options.registration,
            chance=ports.chance,
        ),
        completing=Completing(
            consents=ports.consents,
            rows=base.rows,
            exchanger=Exchanger(consenting),
            flights=grant_flights,
            news=base.news,
            adoption=base.adoption,
            longest_wait=longest_wait(base.times),
        ),
        importing=Importing(consents=ports.consents, consenting=consenting, flights=grant_flights),
        grants=grants,
        guard=guard,
        rotating=Rotating(
            rows=base.rows,
            writing_back=base.writing_back,
            fetcher=fetcher,
            flights=grant_flights,
            observer=ports.observer,
        ),
        explaining=Explaining(
            rows=base.rows, records=ports.records, leases=ports.leases, fleet=base.fleet
        ),
    )
    return Service(
        broker=broker,
        memory=base.memory,
        holdings=base.holdings,
        claims=consenting.claims,
        adoption=base.adoption,
        writing_back=base.writing_back,
        fleet=base.fleet,
        turnstile=base.turnstile,
        guard=guard,
        canary=canary,
        token_flights=token_flights,
        grant_flights=grant_flights,
        news=base.news,
        usage=usage,
        watching=watching,
        renewing=Renewing(
            ports.renewals,
            obtain.renew,
            ports.observer,
            fleet=base.fleet,
            turnstile=base.turnstile,
        ),
        disclosures=disclosures,
        observer=ports.observer,
    )


def _watching(obtain: Obtain, usage: Usage, news: News) -> Watching:
    async def look(tenant: str) -> ServedToken:
        usage.note(tenant)
        return await obtain.get_access_token(tenant, rejected_generation=None, budget=WATCH_BUDGET)

    watching = Watching(look)
    news.follow(watching)
    return watching


def _base(ports: Ports, options: Options) -> _Base:
    times, observer = AttemptTimes(http_timeout=options.http_timeout), ports.observer
    rows, recall = Rows(ports.store, times), Recall()
    memory = Memory(most_copies=options.max_cached_tokens)
    fleet = Fleet(
        ports.fleet,
        observer,
        times=times,
        hold_for=options.guard_hold,
        replica=options.replica,
        build=options.build,
    )
    news = News(ports.store, ports.announcements, memory, observer, recall=recall, fleet=fleet)
    return _Base(
        rows=rows,
        memory=memory,
        holdings=Holdings(),
        news=news,
        recall=recall,
        adoption=Adoption(
            ports.escrows,
            rows,
            memory,
            news,
            consents=ports.consents,
            recall=recall,
            observer=observer,
        ),
        writing_back=WritingBack(rows, recall, memory, news, observer),
        times=times,
        fleet=fleet,
        turnstile=Turnstile(
            most_at_once=options.max_concurrency, rate=lambda: options.max_rate / fleet.alive
        ),
    )


def _consenting(ports: Ports, options: Options, base: _Base) -> Consenting:
    claims = Claims(
        base.rows,
        base.times,
        ports.chance,
        ports.observer,
        adoption=base.adoption,
        replica=options.replica,
    )
    settler = Settler(
        base.rows,
        base.holdings,
        ports.observer,
        ports.chance,
        safekeeping=Safekeeping(ports.escrows, base.memory, base.recall, ports.observer),
        is_holding=base.fleet.is_holding,
        renew_ahead=options.renew_ahead,
    )
    return Consenting(
        rows=base.rows,
        claims=claims,
        times=base.times,
        wire=Wire(ports.provider, base.times, base.holdings, ports.observer),
        turnstile=base.turnstile,
        settler=settler,
        memory=base.memory,
        news=base.news,
        provider=ports.provider,
        holdings=base.holdings,
    )


def _fetcher(ports: Ports, parts: Consenting, *, base: _Base) -> Fetcher:
    refresher = Refresher(
        parts.claims,
        parts.wire,
        parts.settler,
        ports.observer,
        fleet=base.fleet,
        turnstile=base.turnstile,
    )
    return Fetcher(
        base.writing_back,
        parts.memory,
        refresher,
        ports.leases,
        parts.news,
        longest=parts.times.longest_wait,
    )


def _obtain(
    ports: Ports,
    options: Options,
    parts: Consenting,
    *,
    fetcher: Fetcher,
    flights: Flights[ServedToken],
) -> Obtain:
    rejections = Rejections(
        parts.rows,
        parts.memory,
        ports.provider,
        ports.observer,
        interval=options.rejection_interval,
    )
    return Obtain(parts.memory, flights, fetcher, rejections, ports.observer)


def _guarding(
    ports: Ports, options: Options, base: _Base, *, refresh: Callable[[str], Awaitable[object]]
) -> tuple[GuardKeeper, CanaryKeeper]:
    overseer = Overseer(rows=base.rows, memory=base.memory, news=base.news)
    guard = GuardKeeper(
        fleet=base.fleet,
        store=ports.fleet,
        overseer=overseer,
        adoption=base.adoption,
        times=base.times,
        observer=ports.observer,
        keep_for=options.quarantine,
    )
    canary = CanaryKeeper(fleet=base.fleet, store=ports.fleet, overseer=overseer, refresh=refresh)
    return guard, canary


def _grants(
    ports: Ports, options: Options, parts: Consenting, *, obtain: Obtain, recall: Recall
) -> Grants:
    async def living(tenant: str) -> ServedToken:
        return await obtain.get_access_token(tenant, rejected_generation=None, budget=OBTAIN_BUDGET)

    return Grants(
        store=ports.store,
        rows=parts.rows,
        memory=parts.memory,
        news=parts.news,
        recall=recall,
        deleting=Deleting(rows=parts.rows, claims=parts.claims, provider=ports.provider),
        obtain=living,
        may_delete_at_provider=options.may_delete_at_provider,
    )
