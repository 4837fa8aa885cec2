"""The refresh side on a fake world: one PostgreSQL, one Redis, one Pleo, any number of replicas.

Everything below `broker/service` is the fakes that pass the conformance suites; everything in it is
the real code, put together as `broker/service/build.py` does. The clocks of PostgreSQL and Pleo
follow the loop's. Made for `support.virtual_time`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar, Unpack

from broker.domain.facts import Fact
from broker.domain.grant import Grant, TokenPair
from broker.domain.times import AttemptTimes
from broker.ports import Snapshot
from broker.sandbox.record import Counts
from broker.sandbox.settings import ReuseMode, Settings
from broker.service.adoption import Adoption
from broker.service.arming import Arming
from broker.service.claim import Claims
from broker.service.fetch import Fetcher
from broker.service.fleet import Fleet as KnownFleet
from broker.service.flights import Flights
from broker.service.holdings import Holdings
from broker.service.memory import Memory
from broker.service.messages import ServedToken
from broker.service.news import News
from broker.service.obtain import Obtain
from broker.service.recall import Recall
from broker.service.refresh import Refresher
from broker.service.rejections import Rejections
from broker.service.rows import Reading, Rows
from broker.service.safekeeping import Safekeeping
from broker.service.settle import Settler
from broker.service.turnstile import Turnstile
from broker.service.weighing import Weighing
from broker.service.wire import Wire
from broker.service.writing_back import WritingBack
from support.fake_escrows import FakeEscrows
from support.fake_fleet import FakeFleetStore
from support.fake_lease import FakeAnnouncements, FakeLeases, FakeRedis
from support.fake_provider import FakeProvider
from support.fake_store import FakeConsentStore, FakeGrantStore
from support.fake_world import Call, FakeRow, FakeWorld
from support.grants import THE_NOW, GrantChanges, some_grant
from support.virtual_time import START, let_others_run

F = TypeVar("F", bound=Fact)

TIMES: Final = AttemptTimes(http_timeout=timedelta(seconds=10))
"""Attempts of 30 s, quarantines of 20 s."""

BUDGET: Final = timedelta(seconds=30)
"""What a caller without a deadline gets."""

INTERVAL: Final = timedelta(seconds=30)
"""Between rotations because of reports."""

GUARD_HOLD: Final = timedelta(hours=4)
"""How long the guard waits for an engineer."""


def virtual_now() -> datetime:
    """PostgreSQL's clock: `THE_NOW` when the loop begins."""
    return THE_NOW + timedelta(seconds=asyncio.get_running_loop().time() - START)


def seconds_gone() -> float:
    """Returns how long the story goes already."""
    return asyncio.get_running_loop().time() - START


def some_reading(grant: Grant, *, version: int = 1, age: float = 0.0) -> Reading:
    """Returns a row that was asked for `age` seconds ago, and has just come."""
    now = asyncio.get_running_loop().time()
    snapshot = Snapshot(
        grant=grant, version=version, read_at=virtual_now() - timedelta(seconds=age)
    )
    return Reading(snapshot=snapshot, asked_at=now - age, answered_at=now)


class Recorder:
    """An observer that remembers, and tells `listener` at that very moment."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.listener: Callable[[Fact], None] | None = None

    def observe(self, fact: Fact) -> None:
        """See the port."""
        self.facts.append(fact)
        if self.listener is not None:
            self.listener(fact)

    def of(self, kind: type[F]) -> list[F]:
        """Returns the facts of a kind, in order."""
        return [fact for fact in self.facts if isinstance(fact, kind)]


class CountingChance:
    """Names that count, and a jitter of nothing, or always the same."""

    def __init__(self, replica: str, *, jitter: float = 0.0) -> None:
        self._jitter = jitter
        self._replica = replica
        self._count = 0

    def jitter(self) -> float:
        """See the port."""
        return self._jitter

    def identifier(self) -> str:
        """See the port."""
        self._count += 1
        return f"{self._replica}-{self._count}"

    def urlsafe_secret(self) -> str:
        """See the port."""
        return self.identifier()


class Gate:
    """A hook of the world: holds the calls of a method until it is opened; counts all calls."""

    def __init__(self, method: str = "", *, passing: int = 0) -> None:
        """The first `passing` calls go through."""
        self.calls: list[str] = []
        self.reached = asyncio.Event()
        self._method = method
        self._passing = passing
        self._open = asyncio.Event()

    def open(self) -> None:
        """Lets everybody through, from now on."""
        self._open.set()

    async def __call__(self, call: Call) -> None:
        """Runs where a call arrives or departs."""
        self.calls.append(call.method)
        if call.method != self._method or self.calls.count(call.method) <= self._passing:
            return
        self.reached.set()
        await self._open.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One broker's refresh side."""

    name: str
    rows: Rows
    memory: Memory
    holdings: Holdings
    flights: Flights[ServedToken]
    news: News
    recall: Recall
    claims: Claims
    arming: Arming
    weighing: Weighing
    adoption: Adoption
    writing_back: WritingBack
    settler: Settler
    wire: Wire
    refresher: Refresher
    fetcher: Fetcher
    known: KnownFleet
    turnstile: Turnstile
    obtain: Obtain
    told: Recorder
    tasks: asyncio.TaskGroup

    async def get(
        self, tenant: str = "acme", *, rejected: int | None = None, budget: timedelta = BUDGET
    ) -> ServedToken:
        """Calls GetAccessToken."""
        return await self.obtain.get_access_token(
            tenant, rejected_generation=rejected, budget=budget
        )

    def call(
        self, tenant: str = "acme", *, rejected: int | None = None, budget: timedelta = BUDGET
    ) -> asyncio.Task[ServedToken | Exception]:
        """Calls GetAccessToken from a task of its own; errors are what the task returns."""

        async def outcome() -> ServedToken | Exception:
            try:
                return await self.get(tenant, rejected=rejected, budget=budget)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                return error

        return self.tasks.create_task(outcome(), name="a caller")

    async def landed(self) -> None:
        """Waits until every call that was made has its flight, and every flight is over."""
        await let_others_run()
        await self.flights.settled()


@dataclass(slots=True, kw_only=True)
class Fleet:
    """All replicas, and what they share."""

    world: FakeWorld
    redis: FakeRedis
    pleo: FakeProvider
    tasks: asyncio.TaskGroup
    rate: float = 1000.0
    """Refreshes a second, of all replicas: more than a test that is about something else sends."""

    jitter: float = 0.0

    def replica(self, name: str = "one") -> Replica:
        """Starts one more."""
        told, holdings = Recorder(), Holdings()
        store = FakeGrantStore(self.world)
        rows, memory, recall = Rows(store, TIMES), Memory(), Recall()
        chance = CountingChance(name, jitter=self.jitter)
        shared = FakeFleetStore(self.world)
        known = KnownFleet(shared, told, times=TIMES, replica=name, build="test")
        weighing = Weighing(known, shared, told, hold_for=GUARD_HOLD)
        news = News(store, FakeAnnouncements(self.redis), memory, told, recall=recall, fleet=known)
        escrows = FakeEscrows(self.redis)
        consents = FakeConsentStore(self.world)
        adoption = Adoption(
            escrows, rows, memory, news, consents=consents, recall=recall, observer=told
        )
        writing_back = WritingBack(rows, recall, memory, news, told)
        claims = Claims(rows, TIMES, chance, told, replica=name)
        arming = Arming(claims, rows, TIMES, told, adoption=adoption)
        settler = Settler(
            rows,
            holdings,
            told,
            chance,
            safekeeping=Safekeeping(escrows, memory, recall, told),
            is_holding=known.is_holding,
            renew_ahead=timedelta(seconds=90),
        )
        wire = Wire(self.pleo, TIMES, holdings, told)
        turnstile = Turnstile(most_at_once=50, rate=lambda: known.share_of(self.rate))
        refresher = Refresher(
            claims=claims,
            arming=arming,
            wire=wire,
            settler=settler,
            fleet=known,
            weighing=weighing,
            turnstile=turnstile,
            observer=told,
        )
        fetcher = Fetcher(
            writing_back,
            memory,
            refresher,
            FakeLeases(self.redis),
            news,
            longest=TIMES.longest_wait,
        )
        rejections = Rejections(
            rows,
            memory,
            self.pleo,
            told,
            news=news,
            interval=INTERVAL,
            longest=TIMES.longest_wait,
        )
        flights = Flights[ServedToken](self.tasks, told, chance=chance)
        return Replica(
            name=name,
            rows=rows,
            memory=memory,
            holdings=holdings,
            flights=flights,
            news=news,
            recall=recall,
            claims=claims,
            arming=arming,
            weighing=weighing,
            adoption=adoption,
            writing_back=writing_back,
            settler=settler,
            wire=wire,
            refresher=refresher,
            fetcher=fetcher,
            known=known,
            turnstile=turnstile,
            obtain=Obtain(memory, flights, fetcher, rejections, told),
            told=told,
            tasks=self.tasks,
        )

    def connect(self, **changes: Unpack[GrantChanges]) -> Grant:
        """Puts a grant of generation 7 into the world, whose pair Pleo knows; fresh."""
        return self._connect(some_grant(**changes))

    def connect_due(self, **changes: Unpack[GrantChanges]) -> Grant:
        """Puts one that is to be renewed, and lives for another minute."""
        living = THE_NOW + timedelta(minutes=1)
        return self._connect(replace(some_grant(**changes), renew_at=THE_NOW, expires_at=living))

    def connect_expired(self, **changes: Unpack[GrantChanges]) -> Grant:
        """Puts one whose access token is dead."""
        return self._connect(replace(some_grant(**changes), renew_at=THE_NOW, expires_at=THE_NOW))

    def _connect(self, grant: Grant) -> Grant:
        made = self.pleo.connect()
        pair = TokenPair(
            access_token=made.access_token,
            refresh_token=made.refresh_token,
            generation=grant.generation,
        )
        connected = replace(grant, pair=pair)
        self.put(connected)
        return connected

    def put(self, grant: Grant) -> None:
        """Writes a row, past all brokers."""
        known = self.world.rows.get(grant.tenant)
        version = known.version + 1 if known else 1
        self.world.rows[grant.tenant] = FakeRow(
            grant=grant, version=version, changed=self.world.begin(), exclusive_subject=None
        )

    def grant(self, tenant: str = "acme") -> Grant:
        """Returns the row as it lies in PostgreSQL."""
        return self.world.rows[tenant].grant

    def counts(self) -> Counts:
        """Returns what Pleo saw."""
        return self.pleo.sandbox.record.counts()

    def watch(self, method: str = "", *, passing: int = 0) -> Gate:
        """Holds calls of a method of the store when they arrive; counts all."""
        gate = Gate(method, passing=passing)
        self.world.on_arrival = gate
        return gate


@asynccontextmanager
async def fleet(mode: ReuseMode = "strict") -> AsyncIterator[Fleet]:
    """Makes the shared world. Flights and callers are waited for at the end."""
    async with (
        FakeProvider(Settings(mode=mode)) as pleo,
        asyncio.TaskGroup() as tasks,
    ):
        yield Fleet(world=FakeWorld(now=virtual_now), redis=FakeRedis(), pleo=pleo, tasks=tasks)


@asynccontextmanager
async def running(endless: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Runs what never ends by itself while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(endless, name="a loop")
        yield
        task.cancel()
