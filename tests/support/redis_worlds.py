"""A Redis, real or fake, with several replicas and the same faults, and how tests talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import redis.asyncio

from broker.domain.facts import Fact, LeaseOutcome
from broker.lease.address import prefix_of
from broker.lease.announcements import RedisAnnouncements
from broker.lease.beside import running_beside
from broker.lease.client import RedisClient
from broker.lease.leases import RedisLeases
from broker.lease.times import LeaseTimes
from broker.ports import Announcements, GrantMoved, Leases, Resubscribed
from support.clusters import in_cluster
from support.fake_lease import FakeAnnouncements, FakeLeases, FakeRedis
from support.proxy import Proxy, redis_proxy
from support.sentinels import watched

News = GrantMoved | Resubscribed

PREFIX = "token-broker:test:"

QUICK = LeaseTimes(
    ttl=timedelta(milliseconds=400),  # extended with 200 ms to spare: machines do stumble
    connect=timedelta(seconds=1),
    answer=timedelta(seconds=1),
    pause=timedelta(milliseconds=100),
    ping=timedelta(milliseconds=200),
    resubscribe_first=timedelta(milliseconds=20),
    resubscribe_most=timedelta(milliseconds=100),
)

_PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServers:
    """The addresses of real ones."""

    redis_url: str
    sentinel: str
    cluster_node: str
    """The one that has the broker's slot."""

    @asynccontextmanager
    async def near(self, kind: str) -> AsyncIterator[tuple[Proxy, str, str]]:
        """Gives a proxy, the broker's address of the Redis behind it, and the way around it.

        `kind`: `valkey`, `sentinel` or `cluster`.
        """
        direct_url = self.cluster_node if kind == "cluster" else self.redis_url
        async with redis_proxy(direct_url) as (between, url), AsyncExitStack() as stack:
            match kind:
                case "sentinel":
                    found = await stack.enter_async_context(watched(self.sentinel, url))
                case "cluster":
                    found = await stack.enter_async_context(in_cluster(direct_url, url))
                case _:
                    found = url
            yield between, found, direct_url


class RedisWorld(Protocol):
    """What a conformance suite needs of a Redis."""

    async def replica(self, times: LeaseTimes = QUICK) -> tuple[Leases, Announcements]:
        """Makes one more replica."""

    async def cut_off(self) -> None:
        """Lets nobody reach it, until `heal`."""

    async def lose_the_next_answer(self) -> None:
        """Lets it take the next lease without anybody hearing so, until `heal`."""

    async def heal(self) -> None:
        """Ends both."""

    async def flush(self) -> None:
        """Lets it forget."""


class FakeWorld:
    """The fake."""

    def __init__(self) -> None:
        self.redis = FakeRedis()

    async def replica(self, times: LeaseTimes = QUICK) -> tuple[Leases, Announcements]:
        return FakeLeases(self.redis, times=times), FakeAnnouncements(self.redis)

    async def cut_off(self) -> None:
        self.redis.is_reachable = False

    async def lose_the_next_answer(self) -> None:
        self.redis.is_answering = False

    async def heal(self) -> None:
        self.redis.is_reachable = self.redis.is_answering = True

    async def flush(self) -> None:
        self.redis.flush()


class ValkeyWorld:
    """A real one, behind a proxy."""

    def __init__(self, stack: AsyncExitStack, direct_url: str, between: Proxy, url: str) -> None:
        self._stack = stack
        self._direct_url = direct_url
        self._between = between
        self._url = url

    async def replica(self, times: LeaseTimes = QUICK) -> tuple[Leases, Announcements]:
        client = await self._stack.enter_async_context(RedisClient(lambda: self._url, times=times))
        prefix = prefix_of(self._url, "test")
        return RedisLeases(client, prefix=prefix, replica="one"), RedisAnnouncements(
            client, prefix=prefix
        )

    async def cut_off(self) -> None:
        self._between.refuse()
        self._between.cut()

    async def lose_the_next_answer(self) -> None:
        self._between.lose_answers(asked=b"\r\nSET\r\n")

    async def heal(self) -> None:
        self._between.heal()
        self._between.refuse()
        await self._between.accept()

    async def flush(self) -> None:
        async with redis.asyncio.from_url(self._direct_url) as client:
            await client.flushdb()


@asynccontextmanager
async def redis_world(kind: str, servers: RedisServers) -> AsyncIterator[RedisWorld]:
    """Gives the fake, or a real one: itself, through a Sentinel, or in a cluster."""
    if kind == "fake":
        yield FakeWorld()
        return
    async with servers.near(kind) as (between, url, direct_url), AsyncExitStack() as stack:
        yield ValkeyWorld(stack, direct_url, between, url)


async def ask(leases: Leases, tenant: str) -> LeaseOutcome:
    """Asks for a lease and gives it back."""
    async with leases.hold(tenant) as outcome:
        return outcome


async def until_answered(leases: Leases, tenant: str, wanted: LeaseOutcome) -> None:
    """Asks for a lease again and again until the answer is this one."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while await ask(leases, tenant) is not wanted:
            await asyncio.sleep(_POLL_SECONDS)


class Ears:
    """What a listener has heard."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[News] = asyncio.Queue()

    async def listen_to(self, announcements: Announcements) -> None:
        """Listens until cancelled."""
        async for news in announcements.listen():
            self._heard.put_nowait(news)

    async def next(self) -> News:
        """Waits for the next news."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await self._heard.get()

    async def until(self, wanted: News) -> None:
        """Waits for these news, whatever comes before."""
        while await self.next() != wanted:
            pass


@asynccontextmanager
async def listening(announcements: Announcements) -> AsyncIterator[Ears]:
    """Listens while the block runs, and has subscribed before it begins."""
    ears = Ears()
    async with running_beside(ears.listen_to(announcements), name="ears"):
        await ears.until(Resubscribed())
        yield ears


@dataclass(frozen=True, slots=True)
class Notes:
    """An observer that keeps what it is told."""

    facts: list[Fact]

    def observe(self, fact: Fact) -> None:
        """See `ports.Observer.observe`."""
        self.facts.append(fact)
