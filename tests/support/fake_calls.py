"""TokenService as a client's calls see it, from memory and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc

from broker.client.errors import TokenBrokerError, Told, error_of
from broker.v1.token_service_pb2 import (
    GetAccessTokenResponse,
    WatchAccessTokensRequest,
    WatchAccessTokensResponse,
)

LEASE: Final = 475.5
"""Seconds of a token's promise, which with the margin before its rotation make 480."""


def answer_of(
    generation: int, *, reuse_for: float = LEASE, degraded: bool = False
) -> GetAccessTokenResponse:
    """Returns a token's answer."""
    answer = GetAccessTokenResponse(
        access_token=f"fake-access-{generation}",
        token_type="Bearer",
        generation=generation,
        degraded=degraded,
    )
    answer.reuse_for.FromTimedelta(timedelta(seconds=reuse_for))
    answer.expires_in.FromTimedelta(timedelta(seconds=600))
    return answer


def failure(
    reason: str = "",
    *,
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
    retry_after: float | None = None,
) -> TokenBrokerError:
    """Returns what a call fails with."""
    wait = None if retry_after is None else timedelta(seconds=retry_after)
    return error_of(Told(code=code, message=reason, reason=reason, retry_after=wait))


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFor:
    """A call."""

    tenant: str
    rejected: int
    seconds: float


class FakeStream:
    """One call of WatchAccessTokens."""

    def __init__(self) -> None:
        self.said: list[WatchAccessTokensRequest] = []
        self._told: asyncio.Queue[WatchAccessTokensResponse | Exception | None] = asyncio.Queue()

    @property
    def watched(self) -> set[str]:
        """Which tenants are subscribed to."""
        tenants: set[str] = set()
        for request in self.said:
            tenants |= set(request.subscribe.tenants)
            tenants -= set(request.unsubscribe.tenants)
        return tenants

    def tell(self, told: WatchAccessTokensResponse) -> None:
        """Tells the client."""
        self._told.put_nowait(told)

    def tell_token(self, tenant: str, answer: GetAccessTokenResponse) -> None:
        """Tells the client of a token."""
        self.tell(WatchAccessTokensResponse(tenant=tenant, token=answer))

    def end(self, error: Exception | None = None) -> None:
        """Ends the stream."""
        self._told.put_nowait(error)

    async def read(self) -> WatchAccessTokensResponse | Exception | None:
        """Returns what is told next; None or an error: the stream is over."""
        return await self._told.get()


class FakeCalls:
    """Upholds `broker.client.ports.Calls`."""

    def __init__(self) -> None:
        self.answer: GetAccessTokenResponse | Exception = answer_of(1)
        self.delay = 0.0
        """Seconds until an answer."""

        self.asked: list[AskedFor] = []
        self.streams: list[FakeStream] = []

    @property
    def stream(self) -> FakeStream:
        """The newest stream."""
        return self.streams[-1]

    async def get(self, tenant: str, *, rejected: int, seconds: float) -> GetAccessTokenResponse:
        """Answers what is in `answer`, or that there was too little time."""
        self.asked.append(AskedFor(tenant=tenant, rejected=rejected, seconds=seconds))
        answer = self.answer
        await asyncio.sleep(min(self.delay, seconds))
        if self.delay > seconds:
            raise failure(code=grpc.StatusCode.DEADLINE_EXCEEDED)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def watch(
        self, requests: AsyncIterator[WatchAccessTokensRequest]
    ) -> AsyncGenerator[WatchAccessTokensResponse, None]:
        """Tells what the test tells."""
        stream = FakeStream()
        self.streams.append(stream)

        async def listen() -> None:
            async for request in requests:
                stream.said.append(request)

        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(listen(), name="reads what to watch")
            try:
                while isinstance(told := await stream.read(), WatchAccessTokensResponse):
                    yield told
            finally:
                listening.cancel()
        # Not in the group, which would wrap it.
        if told is not None:
            raise told
