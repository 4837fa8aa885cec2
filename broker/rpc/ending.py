"""How a call ends: failures become statuses, and whoever counts or traces calls is told.

Laws of this file:

1. A `BrokerError` ends the call with its status (`status.py`).
2. Any other exception is a defect. The caller gets INTERNAL_ERROR with an id and no text; what
   happened is told to the observer, with the same id. What comes as INTERNAL_ERROR already was
   told where it was met.
3. Cancellation is no failure: gRPC cancels a handler when its caller leaves or its deadline comes.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final

import grpc
import grpc.aio

from broker.domain.errors import BrokerError, InternalError
from broker.domain.facts import DefectMet
from broker.domain.fields import check_tenant
from broker.ports import Observer
from broker.rpc.caller import Context, seconds_remaining
from broker.rpc.gate import Gate
from broker.rpc.observing import CallObserver, CallTracer
from broker.rpc.request_id import set_current_request
from broker.rpc.status import CODES, abort

# 64 bits: enough to find one line in a log.
_DEFECT_BYTES: Final = 8

# A caller hangs up at its deadline, and as messages travel, that comes a moment before our own.
_SAME_MOMENT_SECONDS: Final = 0.1


@dataclass(slots=True)
class Latest:
    """When a call came last, on the monotonic clock."""

    came_at: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Whom the edge asks and tells, and what it calls a defect."""

    observer: Observer
    calls: CallObserver
    gate: Gate
    tracer: CallTracer | None
    new_defect_id: Callable[[], str]
    latest: Latest


def new_defect_id() -> str:
    """Returns a name that no other defect has."""
    return secrets.token_hex(_DEFECT_BYTES)


class Ending:
    """Sees to it that a call ends as the laws say, however the block inside ends.

    A class, because `@asynccontextmanager` costs several times as much at every call.
    """

    __slots__ = ("_began", "_context", "_method", "_request", "_told", "_traced")

    def __init__(self, told: Told, method: str, *, request: object, context: Context) -> None:
        self._told = told
        self._method = method
        self._request = request
        self._context = context
        self._began = told.latest.came_at = time.monotonic()
        metadata = context.invocation_metadata() or ()
        set_current_request(metadata)
        self._traced = None if told.tracer is None else told.tracer.begin(method, metadata)

    async def __aenter__(self) -> None:
        """Nothing: the clock runs already."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._count("OK")
        elif isinstance(error, BrokerError):
            await self._fail(error)
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.BaseError):
            await self._fail(self._defect(error))
        else:
            # Cancelled, or gRPC's own way of saying that the call is over.
            self._count("DEADLINE_EXCEEDED" if _is_late(self._context) else "CANCELLED")

    async def _fail(self, error: BrokerError) -> None:
        tenant = _tenant_of(self._request)
        self._count(CODES[error.reason].name, error.reason, tenant)
        await abort(self._context, error, tenant=tenant)

    def _defect(self, error: Exception) -> InternalError:
        defect_id = self._told.new_defect_id()
        self._told.observer.observe(DefectMet(defect_id=defect_id, where=self._method, error=error))
        return InternalError(defect_id=defect_id)

    def _count(self, code: str, reason: str = "", tenant: str | None = None) -> None:
        self._told.calls.call_ended(
            method=self._method,
            code=code,
            reason=reason,
            duration=timedelta(seconds=time.monotonic() - self._began),
            tenant=tenant,
        )
        if self._traced is not None:
            self._traced.end(code=code, reason=reason, tenant=_tenant_of(self._request))


def _is_late(context: Context) -> bool:
    """Tells a deadline from a caller that left; only for the count."""
    remaining = seconds_remaining(context)
    return remaining is not None and remaining < _SAME_MOMENT_SECONDS


def _tenant_of(request: object) -> str | None:
    """Returns the tenant that a call is about; a malformed one is not repeated to anybody."""
    tenant = getattr(request, "tenant", None)
    return tenant if isinstance(tenant, str) and check_tenant(tenant) is None else None
