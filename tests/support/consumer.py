"""A service that calls Pleo's API for one tenant, as who uses the client library writes it.

What it is told is counted: by Pleo's API through PleoAuth, and how often the broker is asked.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx

from broker.client import Credentials, PleoAuth, ReauthRequired, TokenBrokerError, TokenClient
from broker.client.calls import GrpcCalls
from broker.client.channel import open_channel
from broker.client.ports import Calls
from broker.v1.token_service_pb2 import (
    GetAccessTokenResponse,
    WatchAccessTokensRequest,
    WatchAccessTokensResponse,
)

# Made once: httpx would read all certificates of the world for every client, though none is used.
_TLS: Final = ssl.create_default_context()


@dataclass(slots=True, kw_only=True)
class Clock:
    """The monotonic one, put forward as far as the test lets time pass."""

    ahead: float = 0.0

    def __call__(self) -> float:
        """Returns seconds."""
        return time.monotonic() + self.ahead


@dataclass(slots=True, kw_only=True)
class Metered:
    """Upholds `broker.client.ports.Calls` by others, and counts."""

    calls: Calls
    asked: int = 0
    reports: int = 0
    """Of the asked ones, those that report a 401."""

    streams: int = 0
    took: float = 0.0
    """Seconds of the last one."""

    promise: float = 0.0
    """Seconds that the token which it brought may be kept for."""

    async def get(self, tenant: str, *, rejected: int, seconds: float) -> GetAccessTokenResponse:
        """See the port."""
        self.asked += 1
        self.reports += rejected > 0
        began = time.monotonic()
        answer = await self.calls.get(tenant, rejected=rejected, seconds=seconds)
        self.took = time.monotonic() - began
        self.promise = answer.reuse_for.ToTimedelta().total_seconds()
        return answer

    async def watch(
        self, requests: AsyncIterator[WatchAccessTokensRequest]
    ) -> AsyncGenerator[WatchAccessTokensResponse, None]:
        """See the port."""
        self.streams += 1
        async with aclosing(self.calls.watch(requests)) as stream:
            async for told in stream:
                yield told


@dataclass(slots=True, kw_only=True)
class Consumer:
    """The service, and what it has been told."""

    client: TokenClient
    tenant: str
    api_url: str
    calls: Metered
    clock: Clock
    answers: Counter[int] = field(default_factory=Counter)
    """By status, as the service sees them."""

    failures: Counter[str] = field(default_factory=Counter)
    """Where it had no token for another reason than the one below."""

    left: list[str] = field(default_factory=list)
    """Why the customer must connect again, each time."""

    is_watching: bool
    is_over: bool = False
    is_connected: asyncio.Event = field(default_factory=asyncio.Event)
    pause: float = 0.0
    """Seconds between calls of the API; 0: one after the other."""

    async def run(self) -> None:
        """Calls the API until it is over, and not for a customer who has left."""
        auth = PleoAuth(self.client, self.tenant, api_url=self.api_url)
        async with httpx.AsyncClient(auth=auth, verify=_TLS) as http:
            while not self.is_over:
                try:
                    answer = await http.get(f"{self.api_url}/v1/export-items")
                except ReauthRequired as error:
                    self.left.append(error.cause)
                    self.is_connected.clear()
                    await self.is_connected.wait()
                except TokenBrokerError as error:
                    self.failures[f"{type(error).__name__} {error.code.name}"] += 1
                else:
                    self.answers[answer.status_code] += 1
                await asyncio.sleep(self.pause)

    def reconnect(self) -> None:
        """Has it go on: the customer has consented again."""
        self.is_connected.set()


@asynccontextmanager
async def consuming(
    targets: Sequence[str], *, tenant: str, api_url: str, watch: bool, pause: float = 0.0
) -> AsyncIterator[Consumer]:
    """Runs one beside the block, over brokers at these addresses."""
    credentials, clock = Credentials(), Clock()
    address = f"ipv4:{','.join(targets)}"
    async with open_channel(address, credentials) as channel:
        metered = Metered(calls=GrpcCalls(channel, credentials))
        client = TokenClient(address, watch=watch, calls=metered, clock=clock)
        async with client, asyncio.TaskGroup() as tasks:
            consumer = Consumer(
                client=client,
                tenant=tenant,
                api_url=api_url,
                calls=metered,
                clock=clock,
                is_watching=watch,
                pause=pause,
            )
            tasks.create_task(consumer.run(), name="calls Pleo's API")
            try:
                yield consumer
            finally:
                consumer.is_over = True
                consumer.reconnect()
