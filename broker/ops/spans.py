"""Builds spans from calls and facts: one trace from the caller to the settlement.

    call ─► flight ─► lease, wait, claim, pleo, settle

A flight belongs to the call that started it; who joined it is linked to it. The steps are told when
they are over, with how long they took, so a span is begun and ended at once and none stays open.
Names of tenants are in spans, tokens are in no fact. Decides nothing, and waits for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Final, TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from broker.domain.facts import (
    AttemptAnswered,
    AttemptClaimed,
    AttemptOverdue,
    AttemptSending,
    AttemptSettled,
    DefectMet,
    EscrowAdopted,
    EscrowsUnreachable,
    EscrowWritten,
    Fact,
    FlightEnded,
    FlightJoined,
    FlightStarted,
    LeaseAnswered,
    ReauthBecameRequired,
    RejectionReported,
    SettlementDelayed,
    TokenServed,
    WaitedForReplica,
    WrittenBack,
)
from broker.ops.fact_log import event_name, fields_of
from broker.ops.logs import plain
from broker.rpc.request_id import Metadata

_STEPS: Final[Mapping[type[Fact], str]] = {
    LeaseAnswered: "lease",
    WaitedForReplica: "wait",
    AttemptClaimed: "claim",
    AttemptAnswered: "pleo",
    AttemptSettled: "settle",
}

_Told: TypeAlias = (
    AttemptSending
    | AttemptOverdue
    | DefectMet
    | EscrowAdopted
    | EscrowWritten
    | EscrowsUnreachable
    | ReauthBecameRequired
    | RejectionReported
    | SettlementDelayed
    | WrittenBack
)

_FAILED: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Codes that are the server's failures (OpenTelemetry's conventions for gRPC)."""

_W3C: Final = TraceContextTextMapPropagator()
_W3C_HEADERS: Final = frozenset({"traceparent", "tracestate"})

_NOBODYS: Final = Context()
"""Of no trace. An empty one is given wherever OpenTelemetry would look for its own."""

_call: Final[ContextVar[Span | None]] = ContextVar("traced_call", default=None)
_flight: Final[ContextVar[Span | None]] = ContextVar("traced_flight", default=None)


class Spans:
    """Upholds `broker.ports.Observer` and `broker.rpc.observing.CallTracer`."""

    def __init__(self, tracer: Tracer) -> None:
        """`tracer`: where spans are made."""
        self._tracer = tracer
        self._flights: dict[tuple[str, int], Span] = {}

    def begin(self, method: str, metadata: Metadata) -> TracedCall:
        """Begins a call's span, in the caller's trace if it is part of one."""
        span = self._tracer.start_span(
            f"broker.v1.{method}",
            context=_sent(metadata),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.method": method},
        )
        _call.set(span)
        return TracedCall(span)

    def observe(self, fact: Fact) -> None:
        """Makes of a fact a span, an end, a link or an event; of others nothing."""
        match fact:
            case FlightStarted():
                self._start(fact)
            case FlightJoined():
                self._link(fact)
            case FlightEnded():
                self._end(fact)
            case TokenServed():
                _serve(fact)
            case (
                LeaseAnswered()
                | WaitedForReplica()
                | AttemptClaimed()
                | AttemptAnswered()
                | AttemptSettled()
            ):
                self._step(fact, fact.duration)
            case _ if isinstance(fact, _Told):
                _note(fact)
            case _:
                pass

    def _start(self, fact: FlightStarted) -> None:
        span = self._tracer.start_span("flight", context=_below(_call.get()))
        _describe(span, fact)
        # The context is the flight's own (`facts.FlightStarted`).
        _flight.set(span)
        self._flights[fact.tenant, fact.flight] = span

    def _link(self, fact: FlightJoined) -> None:
        span, flight = _call.get(), self._flights.get((fact.tenant, fact.flight))
        if span is not None and flight is not None:
            span.add_link(flight.get_span_context(), {"broker.waits_for": "flight"})

    def _end(self, fact: FlightEnded) -> None:
        span = self._flights.pop((fact.tenant, fact.flight), None)
        if span is None:
            return
        _describe(span, fact)
        if fact.reason:
            span.set_status(StatusCode.ERROR, fact.reason)
        span.end()

    def _step(self, fact: Fact, took: timedelta) -> None:
        flight, now = _flight.get(), time.time_ns()
        began = now - took // timedelta(microseconds=1) * 1000
        kind = SpanKind.CLIENT if isinstance(fact, AttemptAnswered) else SpanKind.INTERNAL
        span = self._tracer.start_span(
            _STEPS[type(fact)], context=_below(flight), kind=kind, start_time=began
        )
        _describe(span, fact)
        span.end(now)


class TracedCall:
    """Upholds `broker.rpc.observing.OpenCall`."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, *, code: str, reason: str, tenant: str | None) -> None:
        """Ends the call's span."""
        told = {"rpc.response.status_code": code}
        if tenant is not None:
            told["broker.tenant"] = tenant
        if reason:
            told["error.type"] = reason
        self._span.set_attributes(told)
        if code in _FAILED:
            self._span.set_status(StatusCode.ERROR, reason)
        self._span.end()


def current_trace_id() -> str | None:
    """Returns the trace that this is done for, in hexadecimal; None: of none."""
    span = _flight.get() or _call.get()
    return None if span is None else trace.format_trace_id(span.get_span_context().trace_id)


def _sent(metadata: Metadata) -> Context:
    """Returns the trace that the caller named; a malformed one counts as none."""
    carrier = {
        name: value for name, value in metadata if name in _W3C_HEADERS and isinstance(value, str)
    }
    return _W3C.extract(carrier, context=_NOBODYS) if carrier else _NOBODYS


def _below(span: Span | None) -> Context:
    return _NOBODYS if span is None else trace.set_span_in_context(span, _NOBODYS)


def _serve(fact: TokenServed) -> None:
    """As `_describe`, by hand: it stands on the way to every token."""
    span = _call.get()
    if span is not None:
        span.set_attributes({"broker.source": fact.source.value, "broker.degraded": fact.degraded})


def _note(fact: Fact) -> None:
    span = _flight.get() or _call.get()
    if span is not None and span.is_recording():
        span.add_event(event_name(type(fact).__name__), _attributes(fact))


def _describe(span: Span | None, fact: Fact) -> None:
    if span is not None and span.is_recording():
        span.set_attributes(_attributes(fact))


def _attributes(fact: Fact) -> dict[str, str | bool | int | float]:
    told = {name: plain(value) for name, value in fields_of(fact).items() if value is not None}
    return {
        f"broker.{name}": value if isinstance(value, str | bool | int | float) else str(value)
        for name, value in told.items()
    }
