"""What every call passes: callers are let in, failures become statuses, and calls are counted.

Laws of this file:

1. Who calls is decided before anything else is looked at, also before what is malformed is told
   (`unreadable.py`).
2. However a call ends, it ends as `ending.py` says.
3. It stands on the way to every token, so where all goes well it adds next to nothing.

Health and reflection speak protocols of their own and pass untouched.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from broker.domain.facts import DefectMet
from broker.ports import Observer
from broker.rpc.caller import Context, set_current_caller
from broker.rpc.ending import Ending, Latest, Told, new_defect_id
from broker.rpc.gate import Gate, OpenGate
from broker.rpc.observing import CallObserver, CallTracer
from broker.rpc.short_way import GET, AtOnce
from broker.rpc.table import Handler
from broker.rpc.unreadable import PACKAGE, Streaming, reader, reading_each, refuse_unreadable

_Serializer: TypeAlias = Callable[[Message], bytes]
_Unary: TypeAlias = Callable[[Message, Context], Awaitable[Message]]


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
        self._told = Told(
            observer=observer,
            calls=calls,
            gate=gate or OpenGate(),
            tracer=tracer,
            new_defect_id=new_defect_id,
            latest=Latest(),
        )

    def silence(self) -> float:
        """Returns for how many seconds nobody has called."""
        return time.monotonic() - self._told.latest.came_at

    def guard(self, path: str, handler: Handler) -> Handler:
        """Returns a handler of ours wrapped; any other as it is. A `table.Wrap`."""
        if not path.startswith(PACKAGE):
            return handler
        method = path.removeprefix(PACKAGE)
        if method == GET and self._at_once is not None:
            return _encoded(self._told, self._at_once, handler)
        coders = (reader(method, handler), handler.response_serializer)
        if handler.unary_unary is not None:
            unary = _answered(self._told, method, cast("_Unary", handler.unary_unary))
            return grpc.unary_unary_rpc_method_handler(unary, *coders)
        if handler.unary_stream is not None:
            streamed = _streamed(self._told, method, cast("Streaming", handler.unary_stream))
            return grpc.unary_stream_rpc_method_handler(streamed, *coders)
        # The API has no call that streams its request alone.
        both = reading_each(cast("Streaming", handler.stream_stream))
        streamed = _streamed(self._told, method, both)
        return grpc.stream_stream_rpc_method_handler(streamed, *coders)


def _answered(told: Told, method: str, behaviour: _Unary) -> _Unary:
    async def answer(request: Message, context: Context) -> Message:
        async with Ending(told, method, request=request, context=context):
            set_current_caller(await told.gate.admit(method, request, context))
            refuse_unreadable(request)
            return await behaviour(request, context)

    return answer


def _encoded(told: Told, at_once: AtOnce, handler: Handler) -> Handler:
    """Returns a handler of what travels, that goes the short way where it can."""
    read, write = reader(GET, handler), cast("_Serializer", handler.response_serializer)
    the_long_way = _answered(told, GET, cast("_Unary", handler.unary_unary))

    async def answer(request: bytes, context: Context) -> bytes:
        told.latest.came_at = time.monotonic()
        try:
            ready = at_once(request, context)
        except Exception as error:  # noqa: BLE001 - a defect, whose call may yet be answered
            ready = None
            told.observer.observe(DefectMet(defect_id="", where=GET, error=error))
        if ready is not None:
            return ready
        return write(await the_long_way(read(request), context))

    return cast("Handler", grpc.unary_unary_rpc_method_handler(answer))


def _streamed(told: Told, method: str, behaviour: Streaming) -> Streaming:
    async def answers(request: object, context: Context) -> AsyncGenerator[Message, None]:
        async with Ending(told, method, request=request, context=context):
            set_current_caller(await told.gate.admit(method, request, context))
            refuse_unreadable(request)
            # Closed here: left to the garbage collector, it would tidy up at any time and in no
            # task.
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response

    return answers
