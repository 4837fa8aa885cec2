"""Upholds `ports.Calls` over gRPC: deadlines and identity go along, failures come back typed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import grpc.aio

from broker.client.credentials import Credentials
from broker.client.errors import TokenBrokerError, Told
from broker.client.reading import failure_of
from broker.v1 import token_service_pb2_grpc
from broker.v1.token_service_pb2 import (
    GetAccessTokenRequest,
    GetAccessTokenResponse,
    WatchAccessTokensRequest,
    WatchAccessTokensResponse,
)


class GrpcCalls:
    """The calls of one channel."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        """`credentials`: for what goes with each call."""
        self._stub: token_service_pb2_grpc.TokenServiceAsyncStub = (
            token_service_pb2_grpc.TokenServiceStub(channel)
        )
        self._credentials = credentials

    async def get(self, tenant: str, *, rejected: int, seconds: float) -> GetAccessTokenResponse:
        """See the port."""
        request = GetAccessTokenRequest(tenant=tenant, rejected_generation=rejected or None)
        metadata = self._metadata()
        try:
            return await self._stub.GetAccessToken(request, timeout=seconds, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None

    async def watch(
        self, requests: AsyncIterator[WatchAccessTokensRequest]
    ) -> AsyncGenerator[WatchAccessTokensResponse, None]:
        """See the port."""
        stream = self._stub.WatchAccessTokens(requests, metadata=self._metadata())
        try:
            async for told in stream:
                yield told
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None
        finally:
            stream.cancel()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        try:
            return self._credentials.metadata()
        except OSError as error:
            message = f"the caller's token cannot be read: {error.strerror}"
            raise TokenBrokerError(
                Told(code=grpc.StatusCode.UNAUTHENTICATED, message=message)
            ) from None
