"""Where a fault takes place: a Pleo, a PostgreSQL and a Valkey behind proxies, and brokers.

Brokers reach the stores through proxies that the stage can break; the stage itself, and the
registrar, who takes tenants over and is asked for nothing else, reach them directly. Tenants come
with an access token that ends in a moment, so that every broker knows from the row when it is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, Literal

from google.protobuf.timestamp_pb2 import Timestamp

from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory
from broker.dev.servers import postgres_server, valkey_server
from broker.store.grants import PostgresGrants
from broker.store.migrate import migrate
from broker.store.pool import PoolSettings, open_pool
from broker.store.sealing import Keyring
from broker.v1 import grant_service_pb2
from chaos.calls import call
from chaos.cases import Case
from chaos.verdicts import Row
from support.fleet import PATIENCE_SECONDS, Fleet, fleet
from support.onboarding import Customer, new_customer
from support.proxy import Proxy, postgres_proxy, redis_proxy
from support.replica import Replica
from support.sandbox_client import SandboxClient, Tokens, client_of

Mode = Literal["strict", "grace"]

LIFE_SECONDS: Final = 2.0
"""Of the access tokens that tenants come with: longer than taking one over takes."""

LIFE_SECONDS_EACH: Final = 0.05
"""More for each tenant that is taken over at the same time."""

_LONG_SECONDS: Final = 600.0
"""Of those that do not end while anybody looks."""

_PAUSE_SECONDS: Final = (0.2, 0.8)
"""Between the calls of one caller, as a backend backs off."""

_CALLERS_PATIENCE_SECONDS: Final = 200.0
"""Until a caller is answered for good: four times an attempt's deadline and a quarantine."""

_SETTINGS: Final = {"BROKER_PLEO_TIMEOUT_SECONDS": "2"}
"""Callers are told soon that nobody knows; the attempt's deadline is 30 s all the same."""

_REGISTERED_AT_ONCE: Final = 20
"""As a bulk import does; hundreds would wait for PostgreSQL's connections beyond their timeout."""

_STARTED_AT_ONCE: Final = 3
"""A start is a second of work: with more at a time, none is ready in time on a busy machine."""

_FLIPS: Final = """
    SELECT tenant, count(*) AS flips FROM grant_events
    WHERE state_after = 'REAUTH_REQUIRED' AND state_before <> 'REAUTH_REQUIRED' GROUP BY tenant
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How brokers reach the stores."""

    postgres: Proxy
    valkey: Proxy
    settings: dict[str, str]

    def cut(self) -> None:
        """Ends every connection, and lets nobody connect."""
        for each in (self.postgres, self.valkey):
            each.refuse()
            each.cut()

    async def mend(self) -> None:
        """Lets them connect again."""
        for each in (self.postgres, self.valkey):
            each.heal()
            await each.accept()


@dataclass(slots=True, kw_only=True)
class Stage:
    """One fleet and all that it stands on."""

    name: str
    mode: Mode
    brokers: Fleet
    postgres: EmbeddedServer
    valkey: EmbeddedServer
    way: Way
    """The one that most brokers use."""

    registrar: Replica
    chance: Random
    exits: AsyncExitStack
    registering: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_REGISTERED_AT_ONCE)
    )
    replicas: list[Replica] = field(default_factory=list)
    """Who may be asked."""

    async def start(self, count: int, way: Way | None = None, **more: str) -> list[Replica]:
        """Starts brokers, a few at a time, which reach the stores directly or as told.

        They are asked nothing yet.
        """
        settings = {**(_SETTINGS if way is None else way.settings), **more}
        started: list[Replica] = []
        while left := count - len(started):
            started += await self.brokers.start(min(left, _STARTED_AT_ONCE), **settings)
        return started

    async def own_way(self) -> Way:
        """Makes one more way to the stores."""
        return await _way(self.exits, self.brokers)

    async def due_cases(self, fault: str, count: int) -> list[Case]:
        """Returns tenants whose access token has just ended; nothing of theirs was presented."""
        due: list[Case] = []
        while missing := count - len(due):
            seconds = LIFE_SECONDS + missing * LIFE_SECONDS_EACH
            cases, ends_at = await self._accept(fault, missing, seconds=seconds)
            left = ends_at - datetime.now(UTC)
            await asyncio.sleep(max(left.total_seconds(), 0))
            # Those that came too late on a busy machine were presented at once.
            due += [each for each in cases if not self._is_presented(each)]
        return due

    def _is_presented(self, case: Case) -> bool:
        return self.brokers.sandbox.record.counts(case.customer.company).presentations > 0

    async def accepted_cases(self, fault: str, count: int) -> list[Case]:
        """Returns tenants whose access token lives; nothing of theirs was presented."""
        cases, _ = await self._accept(fault, count, seconds=_LONG_SECONDS)
        return cases

    async def _accept(
        self, fault: str, count: int, *, seconds: float
    ) -> tuple[list[Case], datetime]:
        customers = [new_customer(self.brokers.sandbox) for _ in range(count)]
        async with client_of(self.brokers.sandbox) as elsewhere:
            given = [await _tokens(elsewhere, each) for each in customers]
        ends_at = datetime.now(UTC) + timedelta(seconds=seconds)
        await asyncio.gather(
            *(
                self._take_over(*each, ends_at=ends_at)
                for each in zip(customers, given, strict=True)
            )
        )
        cases = [Case(fault=fault, mode=self.mode, customer=each) for each in customers]
        return cases, ends_at

    async def _take_over(self, customer: Customer, given: Tokens, *, ends_at: datetime) -> None:
        expire_time = Timestamp()
        expire_time.FromDatetime(ends_at)
        request = grant_service_pb2.ImportGrantRequest(
            tenant=customer.tenant,
            refresh_token=given["refresh_token"],
            access_token=given["access_token"],
            expire_time=expire_time,
        )
        async with self.registering:
            await self.registrar.grants.ImportGrant(request, timeout=PATIENCE_SECONDS)

    async def ask_on(self, case: Case) -> None:
        """Asks any of the replicas again and again, as one caller, until there is an answer."""
        begin = time.monotonic()
        is_told = False
        while not is_told and time.monotonic() < begin + _CALLERS_PATIENCE_SECONDS:
            told = await call(self.chance.choice(self.replicas), case.tenant)
            case.calls.append(told)
            is_told = told.is_last
            if not is_told:
                await asyncio.sleep(self.chance.uniform(*_PAUSE_SECONDS))
        case.is_told = case.is_told and is_told
        case.longest = max(case.longest, time.monotonic() - begin)

    async def rows(self, cases: Iterable[Case]) -> list[Row]:
        """Reads what the database holds of them."""
        keyring = Keyring.from_file(self.brokers.directory / "keyset.json")
        settings = PoolSettings(url=lambda: self.brokers.database_url)
        async with open_pool(settings) as pool:
            grants = PostgresGrants(
                pool, keyring, allow_shared_subject=False, on_history_lost=lambda *_: None
            )
            flips = {each["tenant"]: each["flips"] for each in await pool.fetch(_FLIPS)}
            return [
                Row(grant=(await grants.read(each.tenant)).grant, flips=flips.get(each.tenant, 0))
                for each in cases
            ]


async def _tokens(elsewhere: SandboxClient, customer: Customer) -> Tokens:
    return await elsewhere.connected(customer.company)


async def _way(exits: AsyncExitStack, brokers: Fleet) -> Way:
    postgres, database_url = await exits.enter_async_context(postgres_proxy(brokers.database_url))
    valkey, redis_url = await exits.enter_async_context(redis_proxy(brokers.redis_url))
    settings = {
        **_SETTINGS,
        "BROKER_DATABASE_URL": database_url,
        "BROKER_REDIS_URL": redis_url,
    }
    return Way(postgres=postgres, valkey=valkey, settings=settings)


@asynccontextmanager
async def stage(run: RunDirectory, name: str, *, mode: Mode, seed: object) -> AsyncIterator[Stage]:
    """Sets a stage; `name`: at most eight letters, unlike those of other stages of the run."""
    async with AsyncExitStack() as exits:
        servers = exits.enter_async_context
        postgres = await servers(postgres_server(run, name=f"pg-{name}", fsync=False))
        valkey = await servers(valkey_server(run, name=f"valkey-{name}", tcp=True))
        await migrate(postgres.url)
        brokers = await servers(fleet(postgres.url, valkey.url, run))
        server = brokers.sandbox.server
        server.settings = replace(server.settings, mode=mode)
        made = Stage(
            name=name,
            mode=mode,
            brokers=brokers,
            postgres=postgres,
            valkey=valkey,
            way=await _way(exits, brokers),
            registrar=await brokers.started(),
            chance=Random(f"{seed}/{name}"),  # noqa: S311 - a run has to repeat itself
            exits=exits,
        )
        yield made
        # While the ways to the stores are still open.
        brokers.sandbox.release()
        await brokers.end()
