"""Who is told of calls: the edge tells, and what becomes of it is none of its business."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from broker.rpc.request_id import Metadata


class CallObserver(Protocol):
    """Who is told how calls ended."""

    def call_ended(
        self, *, method: str, code: str, reason: str, duration: timedelta, tenant: str | None
    ) -> None:
        """Takes note: `method` as `TokenService/GetAccessToken`, `code` as `UNAVAILABLE`.

        `reason` is an ErrorReason; empty where all went well or gRPC made the status. `tenant`: of
        calls that failed by our word, where it is about one. Never raises, never blocks.
        """
        ...


class OpenCall(Protocol):
    """A call that is being traced."""

    def end(self, *, code: str, reason: str, tenant: str | None) -> None:
        """Takes note of its end. Never raises, never blocks."""
        ...


class CallTracer(Protocol):
    """Who follows calls from the caller's own trace on."""

    def begin(self, method: str, metadata: Metadata) -> OpenCall:
        """Begins to follow a call, in the task that answers it. Never raises, never blocks."""
        ...
