"""What the client asks of a broker; upheld over gRPC by `calls.py`, and by fakes in tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from broker.v1.token_service_pb2 import (
    GetAccessTokenResponse,
    WatchAccessTokensRequest,
    WatchAccessTokensResponse,
)


class Calls(Protocol):
    """The calls of TokenService. What fails ends as a `TokenBrokerError`, and as nothing else."""

    async def get(self, tenant: str, *, rejected: int, seconds: float) -> GetAccessTokenResponse:
        """Asks once, for at most so many seconds. `rejected` 0: no report."""
        ...

    def watch(
        self, requests: AsyncIterator[WatchAccessTokensRequest]
    ) -> AsyncGenerator[WatchAccessTokensResponse, None]:
        """Opens a stream; it ends without an error where the replica drains."""
        ...
