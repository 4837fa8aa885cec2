"""What the service stands on: the outside, the settings, and the parts that all others share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

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
from broker.service.adoption import Adoption
from broker.service.claim import Claims
from broker.service.consenting import Consenting
from broker.service.fleet import Fleet
from broker.service.holdings import Holdings
from broker.service.memory import MOST_COPIES, Memory
from broker.service.news import News
from broker.service.recall import Recall
from broker.service.rows import Rows
from broker.service.safekeeping import Safekeeping
from broker.service.settle import Settler
from broker.service.starting import Registration
from broker.service.turnstile import Turnstile
from broker.service.weighing import Weighing
from broker.service.wire import Wire
from broker.service.writing_back import WritingBack


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
class Base:
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
    weighing: Weighing
    turnstile: Turnstile


def base_of(ports: Ports, options: Options) -> Base:
    """Makes the parts that all others share."""
    times, observer = AttemptTimes(http_timeout=options.http_timeout), ports.observer
    rows, recall = Rows(ports.store, times), Recall()
    memory = Memory(most_copies=options.max_cached_tokens)
    fleet = Fleet(
        ports.fleet,
        observer,
        times=times,
        replica=options.replica,
        build=options.build,
    )
    news = News(ports.store, ports.announcements, memory, observer, recall=recall, fleet=fleet)
    return Base(
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
        weighing=Weighing(fleet, ports.fleet, observer, hold_for=options.guard_hold),
        turnstile=Turnstile(
            most_at_once=options.max_concurrency, rate=lambda: fleet.share_of(options.max_rate)
        ),
    )


def consenting_of(ports: Ports, options: Options, base: Base) -> Consenting:
    """Makes what exchanges, imports and refreshes have in common."""
    claims = Claims(
        base.rows,
        base.times,
        ports.chance,
        ports.observer,
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
