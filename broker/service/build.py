"""Puts the service together from the ports: the same for production, tests and simulation.

Inside out, so that nothing exists half made. What comes of it is in `running.py`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.grant import Grant
from broker.service.arming import Arming
from broker.service.at_hand import AtHand
from broker.service.canary import CanaryKeeper
from broker.service.completing import Completing
from broker.service.consenting import Consenting, longest_wait
from broker.service.deleting import Deleting
from broker.service.disclosures import Disclosures
from broker.service.exchange import Exchanger
from broker.service.explaining import Explaining
from broker.service.facade import Broker
from broker.service.fetch import Fetcher
from broker.service.flights import Flights
from broker.service.foundation import Base, Options, Ports, base_of, consenting_of
from broker.service.grants import Grants
from broker.service.guard import GuardKeeper
from broker.service.importing import Importing
from broker.service.messages import ServedToken
from broker.service.news import News
from broker.service.obtain import Obtain
from broker.service.overseeing import Overseer
from broker.service.recall import Recall
from broker.service.refresh import Refresher
from broker.service.rejections import Rejections
from broker.service.renewing import Renewing
from broker.service.rotating import Rotating
from broker.service.running import Service
from broker.service.starting import Starting
from broker.service.usage import Usage
from broker.service.watching import Watching

WATCH_BUDGET: Final = timedelta(seconds=3)
"""For a look at a watched token: a caller's patience. A longer refresh is told when it ends."""

OBTAIN_BUDGET: Final = timedelta(seconds=30)
"""For a token that the broker itself needs: what a caller without a deadline gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Serving:
    """How tokens reach callers, one each."""

    token_flights: Flights[ServedToken]
    grant_flights: Flights[Grant]
    fetcher: Fetcher
    obtain: Obtain
    grants: Grants
    usage: Usage
    watching: Watching


def build_service(ports: Ports, options: Options, task_group: asyncio.TaskGroup) -> Service:
    """Builds it; flights will be tasks of `task_group`."""
    base = base_of(ports, options)
    consenting = consenting_of(ports, options, base)
    serving = _serving(ports, options, consenting, base=base, task_group=task_group)
    guard, canary = _guarding(ports, options, base, refresh=serving.grants.obtain)
    broker = _broker(ports, options, consenting, base=base, serving=serving, guard=guard)
    return Service(
        broker=broker,
        at_hand=AtHand(base.memory, serving.usage, broker.disclosures),
        memory=base.memory,
        holdings=base.holdings,
        claims=consenting.claims,
        adoption=base.adoption,
        writing_back=base.writing_back,
        fleet=base.fleet,
        turnstile=base.turnstile,
        guard=guard,
        canary=canary,
        token_flights=serving.token_flights,
        grant_flights=serving.grant_flights,
        news=base.news,
        usage=serving.usage,
        watching=serving.watching,
        renewing=_renewing(ports, base, serving.obtain),
        disclosures=broker.disclosures,
        observer=ports.observer,
    )


def _serving(
    ports: Ports,
    options: Options,
    consenting: Consenting,
    *,
    base: Base,
    task_group: asyncio.TaskGroup,
) -> _Serving:
    observer, chance, numbers = ports.observer, ports.chance, itertools.count(1)
    token_flights = Flights[ServedToken](task_group, observer, chance=chance, numbers=numbers)
    fetcher = _fetcher(ports, consenting, base=base)
    obtain = _obtain(ports, options, consenting, fetcher=fetcher, flights=token_flights)
    usage = Usage(ports.store)
    return _Serving(
        token_flights=token_flights,
        grant_flights=Flights[Grant](task_group, observer, chance=chance, numbers=numbers),
        fetcher=fetcher,
        obtain=obtain,
        grants=_grants(ports, options, consenting, obtain=obtain, recall=base.recall),
        usage=usage,
        watching=_watching(obtain, usage, base.news),
    )


def _broker(
    ports: Ports,
    options: Options,
    consenting: Consenting,
    *,
    base: Base,
    serving: _Serving,
    guard: GuardKeeper,
) -> Broker:
    flights = serving.grant_flights
    return Broker(
        obtain=serving.obtain,
        usage=serving.usage,
        disclosures=Disclosures(ports.records),
        starting=Starting(
            consents=ports.consents,
            rows=base.rows,
            provider=ports.provider,
            registration=options.registration,
            chance=ports.chance,
        ),
        completing=_completing(ports, consenting, base=base, flights=flights),
        importing=Importing(consents=ports.consents, consenting=consenting, flights=flights),
        grants=serving.grants,
        guard=guard,
        rotating=Rotating(
            rows=base.rows,
            writing_back=base.writing_back,
            fetcher=serving.fetcher,
            flights=flights,
            observer=ports.observer,
        ),
        explaining=Explaining(
            rows=base.rows, records=ports.records, leases=ports.leases, fleet=base.fleet
        ),
    )


def _completing(
    ports: Ports, consenting: Consenting, *, base: Base, flights: Flights[Grant]
) -> Completing:
    return Completing(
        consents=ports.consents,
        rows=base.rows,
        exchanger=Exchanger(consenting),
        flights=flights,
        news=base.news,
        adoption=base.adoption,
        longest_wait=longest_wait(base.times),
    )


def _renewing(ports: Ports, base: Base, obtain: Obtain) -> Renewing:
    return Renewing(
        ports.renewals,
        obtain.renew,
        ports.observer,
        fleet=base.fleet,
        turnstile=base.turnstile,
    )


def _watching(obtain: Obtain, usage: Usage, news: News) -> Watching:
    async def look(tenant: str) -> ServedToken:
        usage.note(tenant)
        return await obtain.get_access_token(tenant, rejected_generation=None, budget=WATCH_BUDGET)

    watching = Watching(look)
    news.follow(watching)
    return watching


def _fetcher(ports: Ports, parts: Consenting, *, base: Base) -> Fetcher:
    arming = Arming(parts.claims, base.rows, base.times, ports.observer, adoption=base.adoption)
    refresher = Refresher(
        claims=parts.claims,
        arming=arming,
        wire=parts.wire,
        settler=parts.settler,
        fleet=base.fleet,
        weighing=base.weighing,
        turnstile=base.turnstile,
        observer=ports.observer,
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
        news=parts.news,
        interval=options.rejection_interval,
        longest=parts.times.longest_wait,
    )
    return Obtain(parts.memory, flights, fetcher, rejections, ports.observer)


def _guarding(
    ports: Ports, options: Options, base: Base, *, refresh: Callable[[str], Awaitable[object]]
) -> tuple[GuardKeeper, CanaryKeeper]:
    overseer = Overseer(rows=base.rows, memory=base.memory, news=base.news)
    guard = GuardKeeper(
        fleet=base.fleet,
        weighing=base.weighing,
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
        observer=ports.observer,
        obtain=living,
        may_delete_at_provider=options.may_delete_at_provider,
    )
