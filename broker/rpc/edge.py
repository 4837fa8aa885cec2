"""What every call passes: callers are let in, failures become statuses, and calls are counted.

Laws of this file:

1. A `BrokerError` ends the call with its status (`status.py`); so does a request that is no message
   at all, as the invalid one that it is.
2. Any other exception is a defect. The caller gets INTERNAL_ERROR with an id and no text; what
   happened is told to the observer, with the same id. What comes as INTERNAL_ERROR already was
   told where it was met.
3. Cancellation is no failure: gRPC cancels a handler when its caller leaves or its deadline comes.
4. Who calls is decided before anything else is looked at, also before what is malformed is told.
5. It stands on the way to every token, so where all goes well it adds next to nothing.

Health and reflection speak protocols of their own and pass untouched.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message

from broker.domain.errors import BrokerError, FieldViolation, InternalError, InvalidRequest
from broker.domain.facts import DefectMet
from broker.domain.fields import check_tenant
from broker.ports import Observer
from broker.rpc.caller import Context, set_current_caller
from broker.rpc.gate import Gate, OpenGate
from broker.rpc.observing import CallObserver, CallTracer
from broker.rpc.request_id import set_current_request
from broker.rpc.short_way import GET, AtOnce
from broker.rpc.status import CODES, abort
from broker.rpc.table import Handler

_PACKAGE: Final = "/broker.v1."

# 64 bits: enough to find one line in a log.
_DEFECT_BYTES: Final = 8

# A caller hangs up at its deadline, and as messages travel, that comes a moment before our own.
_SAME_MOMENT_SECONDS: Final = 0.1

_Deserializer: TypeAlias = Callable[[bytes], Message]
_Serializer: TypeAlias = Callable[[Message], bytes]
_Unary: TypeAlias = Callable[[Message, Context], Awaitable[Message]]
# What is asked may be a stream of messages, too.
_Streaming: TypeAlias = Callable[[object, Context], AsyncGenerator[Message, None]]


@dataclass(slots=True)
class _Latest:
    """When a call came last, on the monotonic clock."""

    came_at: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """Whom the edge asks and tells, and what it calls a defect."""

    observer: Observer
    calls: CallObserver
    gate: Gate
    tracer: CallTracer | None
    new_defect_id: Callable[[], str]
    latest: _Latest


def new_defect_id() -> str:
    """Returns a name that no other defect has."""
    return secrets.token_hex(_DEFECT_BYTES)


class Edge:
    """Wraps the handlers of our own services."""

    def __init__(
        self,
        *,
        observer: Observer,
        calls: CallObserver,
        gate: Gate | None = None,
        tracer: CallTracer | None = None,
        new_defect_id: Callable[[], str] = new_defect_id,
        at_once: AtOnce | None = None,
    ) -> None:
        """Without a `gate` everybody may do everything. `at_once`: see `short_way.py`."""
        self._at_once = at_once
        self._told = _Told(
            observer=observer,
            calls=calls,
            gate=gate or OpenGate(),
            tracer=tracer,
            new_defect_id=new_defect_id,
            latest=_Latest(),
        )

    def silence(self) -> float:
        """Returns for how many seconds nobody has called."""
        return time.monotonic() - self._told.latest.came_at

    def guard(self, path: str, handler: Handler) -> Handler:
        """Returns a handler of ours wrapped; any other as it is. A `table.Wrap`."""
        if not path.startswith(_PACKAGE):
            return handler
        method = path.removeprefix(_PACKAGE)
        if method == GET and self._at_once is not None:
            return _encoded(self._told, self._at_once, handler)
        coders = (_reader(method, handler), handler.response_serializer)
        if handler.unary_unary is not None:
            unary = _answered(self._told, method, cast("_Unary", handler.unary_unary))
            return grpc.unary_unary_rpc_method_handler(unary, *coders)
        if handler.unary_stream is not None:
            streamed = _streamed(self._told, method, cast("_Streaming", handler.unary_stream))
            return grpc.unary_stream_rpc_method_handler(streamed, *coders)
        # The API has no call that streams its request alone.
        both = _reading_each(cast("_Streaming", handler.stream_stream))
        streamed = _streamed(self._told, method, both)
        return grpc.stream_stream_rpc_method_handler(streamed, *coders)


class _Unreadable:
    """Stands for a request that is no message, on its way to where a failure can be told."""

    __slots__ = ("error",)

    def __init__(self, expected: str) -> None:
        self.error = InvalidRequest([FieldViolation(field="", description=expected)])


def _reader(method: str, handler: Handler) -> _Deserializer:
    """Returns what reads a request, or says what it should have been.

    Without it gRPC answers with protobuf's text, a status of its own, and an error in the log.
    """
    read = cast("_Deserializer", handler.request_deserializer)
    name = f"{_PACKAGE}{method}".strip("/").replace("/", ".")
    asked = descriptor_pool.Default().FindMethodByName(name).input_type.full_name

    def read_or_say(encoded: bytes) -> Message:
        try:
            return read(encoded)
        except DecodeError:
            said = _Unreadable(f"must be a {asked} message in protobuf's encoding")
            return cast("Message", said)  # gRPC passes on whatever it is

    return read_or_say


def _refuse_unreadable(request: object) -> None:
    if isinstance(request, _Unreadable):
        raise request.error


def _answered(told: _Told, method: str, behaviour: _Unary) -> _Unary:
    async def answer(request: Message, context: Context) -> Message:
        async with _Ending(told, method, request=request, context=context):
            set_current_caller(await told.gate.admit(method, request, context))
            _refuse_unreadable(request)
            return await behaviour(request, context)

    return answer


def _encoded(told: _Told, at_once: AtOnce, handler: Handler) -> Handler:
    """Returns a handler of what travels, that goes the short way where it can."""
    read, write = _reader(GET, handler), cast("_Serializer", handler.response_serializer)
    the_long_way = _answered(told, GET, cast("_Unary", handler.unary_unary))

    async def answer(request: bytes, context: Context) -> bytes:
        told.latest.came_at = time.monotonic()
        try:
            ready = at_once(request, context)
        except Exception as error:  # noqa: BLE001 - a defect (law 2), whose call may yet be answered
            ready = None
            told.observer.observe(DefectMet(defect_id="", where=GET, error=error))
        if ready is not None:
            return ready
        return write(await the_long_way(read(request), context))

    return cast("Handler", grpc.unary_unary_rpc_method_handler(answer))


def _streamed(told: _Told, method: str, behaviour: _Streaming) -> _Streaming:
    async def answers(request: object, context: Context) -> AsyncGenerator[Message, None]:
        async with _Ending(told, method, request=request, context=context):
            set_current_caller(await told.gate.admit(method, request, context))
            _refuse_unreadable(request)
            # Closed here: left to the garbage collector, it would tidy up at any time and in no
            # task.
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response

    return answers


def _reading_each(behaviour: _Streaming) -> _Streaming:
    """Has what is no message refused where it comes in the stream of requests."""

    def answers(requests: object, context: Context) -> AsyncGenerator[Message, None]:
        return behaviour(_readable(cast("AsyncIterator[Message]", requests)), context)

    return answers


async def _readable(requests: AsyncIterator[Message]) -> AsyncGenerator[Message, None]:
    async for request in requests:
        _refuse_unreadable(request)
        yield request


class _Ending:
    """Sees to it that a call ends as the laws say, however the block inside ends.

    A class, because `@asynccontextmanager` costs several times as much at every call.
    """

    __slots__ = ("_began", "_context", "_method", "_request", "_told", "_traced")

    def __init__(self, told: _Told, method: str, *, request: object, context: Context) -> None:
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


def seconds_remaining(context: Context) -> float | None:
    """Returns the time until the caller's deadline, never negative; None: there is none.

    gRPC's own word for it; its types leave out that it may be None.
    """
    return context.time_remaining()


def _is_late(context: Context) -> bool:
    """Tells a deadline from a caller that left; only for the count."""
    remaining = seconds_remaining(context)
    return remaining is not None and remaining < _SAME_MOMENT_SECONDS


def _tenant_of(request: object) -> str | None:
    """Returns the tenant that a call is about; a malformed one is not repeated to anybody."""
    tenant = getattr(request, "tenant", None)
    return tenant if isinstance(tenant, str) and check_tenant(tenant) is None else None
