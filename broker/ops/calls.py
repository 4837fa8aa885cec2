"""Several observers of calls as one, and what the log says of the call that a line is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TypeAlias

from broker.rpc.caller import current_caller
from broker.rpc.observing import CallObserver
from broker.rpc.request_id import current_request_id

TraceId: TypeAlias = Callable[[], str | None]
"""Returns the id of the trace that this is part of; None: of none."""


class CallObservers:
    """Upholds `broker.rpc.observing.CallObserver`."""

    def __init__(self, observers: Sequence[CallObserver]) -> None:
        """`observers` are told in this order."""
        self._observers = tuple(observers)

    def call_ended(
        self, *, method: str, code: str, reason: str, duration: timedelta, tenant: str | None
    ) -> None:
        """Tells everybody."""
        for each in self._observers:
            each.call_ended(
                method=method, code=code, reason=reason, duration=duration, tenant=tenant
            )


def no_trace() -> None:
    """Where nothing is traced; a `TraceId`."""


def about_call(trace_id: TraceId = no_trace) -> Mapping[str, object]:
    """Returns who calls and by which ids the call is known; empty outside of calls.

    Of a flight: the call that started it.
    """
    request_id, trace = current_request_id(), trace_id()
    about: dict[str, object] = {"trace_id": trace} if trace else {}
    if request_id is not None:
        caller = current_caller()
        about |= {"request_id": request_id, "caller": caller.identity, "rpc": caller.rpc}
    return about
