"""One restore: tenants before and after a backup, which is put back, and what comes of them.

Access tokens have ended when the backup is taken, as those of an hour ago have. What is told of a
tenant is what a backend that goes on asking is told in the end; what was presented is Pleo's word.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from random import Random
from typing import Final, Literal

from broker.dev.databases import on_database
from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory
from broker.dev.servers import postgres_server, valkey_server
from broker.store.migrate import migrate
from broker.v1 import operations_service_pb2, operations_service_pb2_grpc
from chaos.backups import DATABASE, Backup, Way
from chaos.calls import Call, call
from chaos.stage import Mode
from support.fleet import PATIENCE_SECONDS, Fleet, fleet
from support.onboarding import Customer, expire, get, new_customer, revoke, take_over_living
from support.proxy import Proxy, postgres_proxy
from support.replica import Replica
from support.standby import ask
from support.waiting import comes_true

Memory = Literal["all run on", "one is new", "all are new"]
"""Which of the replicas, that stored what the restore takes back, are there after it."""

SETTINGS: Final = {"BROKER_PLEO_TIMEOUT_SECONDS": "3"}
"""A busy machine answers within that; attempts take 30 s all the same, quarantines 20 s."""

_REPLICAS: Final = 3

_AT_ONCE: Final = 4
"""Of what comes before the restore: who is late then on a busy machine would end the drill."""

_OFTEN: Final = 3
"""Further rotations, beyond what a Pleo with grace takes."""

_PATIENCE_SECONDS: Final = 150.0
"""Until a caller is told for good: three times a span and a quarantine."""

_START_SECONDS: Final = 120.0
"""For a broker's start: a second of work, and a machine may have many times as much beside it."""

_PAUSE_SECONDS: Final = (0.3, 0.9)
"""Between the calls of one caller."""


class Since(StrEnum):
    """What happened to a tenant since the backup."""

    NOTHING = "nothing"
    ROTATED = "rotated once"
    ROTATED_OFTEN = "rotated four times"
    CONNECTED = "connected"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """One of the ways in which it can go."""

    mode: Mode
    memory: Memory
    way: Way
    is_marked: bool = True
    """With `migrate --restored`, before a broker reaches it."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of the tenants of one kind."""

    tenants: int = 0
    alone: int = 0
    """Got a token that lives at Pleo, without anybody's help."""

    consents: Counter[str] = field(default_factory=Counter)
    """Must consent again, by cause."""

    unknown: int = 0
    """TENANT_NOT_FOUND."""

    other: Counter[str] = field(default_factory=Counter)
    superseded: int = 0
    """Presentations of a superseded token since."""

    twice: int = 0
    """Tokens that were presented more than once since."""

    def is_good(self, restore: Restore, since: Since) -> bool:
        """Whether it is as deploy/operations.md says."""
        if self.twice or self.other or set(self.consents) - {"ROTATION_LOST"}:
            return False
        if restore.memory == "all run on" and self.superseded:
            return False
        is_back = since is Since.NOTHING or restore.memory == "all run on"
        ended = self.unknown if since is Since.REVOKED else self.alone
        return ended == self.tenants if is_back else True


Outcomes = dict[Since, Outcome]


def is_good(restore: Restore, outcomes: Outcomes) -> bool:
    """Whether all of it is as deploy/operations.md says."""
    return all(each.is_good(restore, since) for since, each in outcomes.items())


@dataclass(slots=True, kw_only=True)
class Scene:
    """A fleet whose way to PostgreSQL can be closed."""

    brokers: Fleet
    postgres: EmbeddedServer
    between: Proxy
    settings: dict[str, str]
    chance: Random
    tenants: dict[Since, list[Customer]] = field(default_factory=dict)
    owners: dict[str, Replica] = field(default_factory=dict)
    """Who did what happened to a tenant since the backup, and remembers it."""

    @property
    def replicas(self) -> list[Replica]:
        """Those that run."""
        return [each for each in self.brokers.replicas if each.status is None]

    def close(self) -> None:
        """Keeps brokers away from PostgreSQL."""
        self.between.refuse()
        self.between.cut()

    async def begin(self, each: int, kinds: Iterable[Since]) -> None:
        """Lets tenants come, those that come before the backup; their access tokens end."""
        await self._start(_REPLICAS)
        for since in kinds:
            self.tenants[since] = [new_customer(self.brokers.sandbox) for _ in range(each)]
        early = [
            customer
            for since, customers in self.tenants.items()
            for customer in customers
            if since is not Since.CONNECTED
        ]
        for number, replica in enumerate(self.replicas):
            theirs = early[number::_REPLICAS]
            for first in range(0, len(theirs), _AT_ONCE):
                some = theirs[first : first + _AT_ONCE]
                await take_over_living(self.brokers, replica, some)
            await expire(self.brokers, *(one.tenant for one in theirs), known_to=replica)

    async def go_on(self) -> None:
        """Lets happen what the restore takes back, each at another replica."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(since: Since, customer: Customer, replica: Replica) -> None:
            async with turns:
                await self._happen(since, customer, replica)

        await asyncio.gather(
            *(
                one(since, customer, self.replicas[number % _REPLICAS])
                for since, customers in self.tenants.items()
                for number, customer in enumerate(customers)
            )
        )

    async def _happen(self, since: Since, customer: Customer, replica: Replica) -> None:
        self.owners[customer.tenant] = replica
        match since:
            case Since.NOTHING:
                return
            case Since.CONNECTED:
                await take_over_living(self.brokers, replica, [customer])
                await _rotate(replica, customer)
            case Since.ROTATED:
                await get(replica.tokens, customer.tenant)
            case Since.ROTATED_OFTEN:
                await get(replica.tokens, customer.tenant)
                for _ in range(_OFTEN):
                    await _rotate(replica, customer)
            case Since.REVOKED:
                await revoke(replica, customer.tenant)

    async def lose_memory(self, memory: Memory) -> None:
        """Ends the replicas that are not there after the restore."""
        if memory == "one is new":
            self.replicas[-1].kill()
        if memory == "all are new":
            for each in self.replicas:
                await each.hang_up()
                each.terminate()
                await each.ended()

    async def open(self) -> None:
        """Lets brokers at PostgreSQL, and starts those that are missing."""
        self.between.heal()
        await self.between.accept()
        await self._start(_REPLICAS - len(self.replicas))

    async def _start(self, count: int) -> None:
        # One after the other: a start is a second of work, and other restores are under way.
        for _ in range(count):
            replica = self.brokers.launch(**self.settings)
            await comes_true(partial(_has_begun, replica), seconds=_START_SECONDS)
            await self.brokers.until_ready(replica, seconds=_START_SECONDS)

    async def ask_on(self, since: Since, customer: Customer) -> Call:
        """Asks any replica again and again, until there is an answer for good.

        A connected tenant is unknown to the others until who remembers it has written it back.
        """
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        is_remembered = self.owners[customer.tenant].status is None
        may_be_unknown = since is Since.REVOKED or not is_remembered
        while True:
            told = await call(self.chance.choice(self.replicas), customer.tenant)
            is_unknown = told.reason == "TENANT_NOT_FOUND" and may_be_unknown
            if told.is_last or is_unknown or time.monotonic() > give_up_at:
                return told
            await asyncio.sleep(self.chance.uniform(*_PAUSE_SECONDS))

    async def ask_all(self) -> dict[Since, list[Call]]:
        """Asks for every tenant, as so many callers at once."""
        told = {
            since: asyncio.gather(*(self.ask_on(since, each) for each in customers))
            for since, customers in self.tenants.items()
        }
        return {since: list(await asking) for since, asking in told.items()}

    def judge(self, told: dict[Since, list[Call]], since_time: datetime) -> Outcomes:
        """Adds up what was told and presented."""
        return {
            since: self._outcome(zip(customers, told[since], strict=True), since_time)
            for since, customers in self.tenants.items()
        }

    def _outcome(self, told: Iterable[tuple[Customer, Call]], since_time: datetime) -> Outcome:
        outcome = Outcome()
        for customer, answer in told:
            outcome.tenants += 1
            self._add(outcome, answer)
            shown = [
                each
                for each in self.brokers.sandbox.record.of(customer.company)
                if each.via == "token" and each.arrived_at >= since_time
                and each.presented.kind == "refresh_token"
            ]  # fmt: skip
            outcome.superseded += sum(each.was_superseded for each in shown)
            names = Counter(each.presented.name for each in shown)
            outcome.twice += sum(count > 1 for count in names.values())
        return outcome

    def _add(self, outcome: Outcome, answer: Call) -> None:
        if answer.access_token:
            found = self.brokers.sandbox.server.realm.ledger.find_access_token(answer.access_token)
            if found is not None and found.is_accepted(datetime.now(UTC)):
                outcome.alone += 1
            else:
                outcome.other["a dead token"] += 1
        elif answer.reason == "REAUTH_REQUIRED":
            outcome.consents[answer.cause] += 1
        elif answer.reason == "TENANT_NOT_FOUND":
            outcome.unknown += 1
        else:
            outcome.other[answer.reason] += 1


async def restore(
    run: RunDirectory,
    asked: Restore,
    *,
    name: str,
    each: int,
    seed: object,
    kinds: Iterable[Since] = Since,
) -> Outcomes:
    """Plays one restore with so many tenants of each kind, and returns what came of them."""
    async with _scene(run, name, mode=asked.mode, seed=seed) as scene:
        await scene.begin(each, kinds)
        backup = await Backup.take(run, scene.postgres)
        await scene.go_on()
        await scene.lose_memory(asked.memory)
        scene.close()
        await backup.put_back(asked.way)
        if asked.is_marked:
            await migrate(scene.brokers.database_url, is_restored=True)
        since_time = datetime.now(UTC)
        await scene.open()
        await scene.ask_all()
        # Once more, of all replicas: what was answered for good asks Pleo nothing further.
        return scene.judge(await scene.ask_all(), since_time)


def _has_begun(replica: Replica) -> bool:
    return bool(replica.seen("broker_started")) or replica.status is not None


async def _rotate(replica: Replica, customer: Customer) -> None:
    stub = operations_service_pb2_grpc.OperationsServiceStub(replica.first_channel)
    request = operations_service_pb2.RefreshGrantRequest(
        tenant=customer.tenant, reason="the drill says so"
    )
    await stub.RefreshGrant(request, timeout=PATIENCE_SECONDS)


@asynccontextmanager
async def _scene(run: RunDirectory, name: str, *, mode: Mode, seed: object) -> AsyncIterator[Scene]:
    """Sets it; `name`: at most eight letters, unlike those of other scenes of the run."""
    async with AsyncExitStack() as exits:
        enter = exits.enter_async_context
        postgres = await enter(postgres_server(run, name=f"pg-{name}", fsync=False))
        valkey = await enter(valkey_server(run, name=f"valkey-{name}", tcp=True))
        url = on_database(postgres.url, DATABASE)
        await ask(postgres.url, f"CREATE DATABASE {DATABASE}")
        await migrate(url)
        brokers = await enter(fleet(url, valkey.url, run))
        server = brokers.sandbox.server
        server.settings = replace(server.settings, mode=mode)
        between, through = await enter(postgres_proxy(url))
        made = Scene(
            brokers=brokers,
            postgres=postgres,
            between=between,
            settings={**SETTINGS, "BROKER_DATABASE_URL": through},
            chance=Random(f"{seed}/{name}"),  # noqa: S311 - a run has to repeat itself
        )
        yield made
        # While the way to PostgreSQL is still open.
        await brokers.end()
