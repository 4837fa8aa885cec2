"""Calls as a backend makes them, each kept with what it was told, for the judgement.

Knows what a caller can see: a token, or an error's reason. What was right is `verdicts`' to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import grpc

from support.onboarding import get
from support.replica import Replica
from support.rpc import told_by

SECONDS: Final = 8.0
"""A caller's deadline: longer than any answer takes that does not wait for another's deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, and its answer."""

    tenant: str
    replica: str
    """Who was asked."""

    asked_at: datetime
    """On the clock of the sandbox's record."""

    access_token: str = field(default="", repr=False)
    is_degraded: bool = False
    reason: str = ""
    """The ErrorReason; where the broker gave none, gRPC's own code."""

    cause: str = ""

    @property
    def is_last(self) -> bool:
        """Whether a caller has nothing more to ask: a fresh token, or the customer must act."""
        is_fresh = bool(self.access_token) and not self.is_degraded
        return is_fresh or self.reason == "REAUTH_REQUIRED"


async def call(replica: Replica, tenant: str, *, seconds: float = SECONDS) -> Call:
    """Asks once."""
    asked_at = datetime.now(UTC)
    try:
        answer = await get(replica.tokens, tenant, seconds=seconds)
    except grpc.aio.AioRpcError as error:
        reason, cause = reason_of(error)
        return Call(
            tenant=tenant, replica=replica.name, asked_at=asked_at, reason=reason, cause=cause
        )
    return Call(
        tenant=tenant,
        replica=replica.name,
        asked_at=asked_at,
        access_token=answer.access_token,
        is_degraded=answer.degraded,
    )


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """Returns the ErrorReason of a failed call, or gRPC's own code, and the cause if told."""
    told = told_by(error)
    if "grpc-status-details-bin" not in told.trailers:
        return error.code().name, ""
    return told.error_info.reason, told.error_info.metadata.get("cause", "")
