"""The short way of GetAccessToken: from bytes to bytes, for a token that is in memory.

It stands on the way of nearly every token, and so does as little as there is to do. Laws:

1. It answers as the long way (`edge.py`, `token_service.py`) would, and to whom that would: the
   same gate, scopes, record, and count. Whatever is not plain (a report, a refusal, a copy that is
   not fresh) is left to the long way, with nothing done yet. So all that a caller can be told is
   told there, after it was decided who calls.
2. Nothing is waited for, and no trace begins: where traces are wanted, there is only the long way.
3. Whether the token may be handed out is asked of the memory at every call. What is kept here is
   the answer as it was written, for a tenth of a second, so that no dead token outlives its copy
   by more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError

from broker.domain.facts import Source, TokenServed
from broker.ports import Observer
from broker.rpc.caller import Caller, Context, set_current_caller
from broker.rpc.gate import Gate
from broker.rpc.messages import lasting_part, passing_part
from broker.rpc.observing import CallObserver
from broker.rpc.ports import AtHand
from broker.rpc.request_id import set_current_request
from broker.service.memory import Copy
from broker.v1.token_service_pb2 import GetAccessTokenRequest

GET: Final = "TokenService/GetAccessToken"

_KEPT_SECONDS: Final = 0.1
"""How long an answer is used again. Its spans (`expires_in`, `reuse_for`) are those at the end of
that time, so they are never too long, and too short by no more than a network may take. A caller
that asks often finds it ready; as many are kept as tenants are asked for within it."""

_KEPT: Final = timedelta(seconds=_KEPT_SECONDS)

AtOnce: TypeAlias = Callable[[bytes, Context], bytes | None]
"""Answers an encoded request with an encoded answer; None: it goes the long way."""

Told: TypeAlias = Callable[[float, str, Context], None]
"""Is told that a token was handed out, in so many seconds and to whom. Never raises nor blocks."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """An answer, and the copy that it was made from."""

    tenant: str
    copy: Copy
    answer: bytes = field(repr=False)


class ShortWay:
    """Answers what can be answered at once."""

    def __init__(self, at_hand: AtHand, gate: Gate, *, told: Told) -> None:
        """`gate`: that of the long way."""
        self._at_hand = at_hand
        self._gate = gate
        self._told = told
        self._ready: dict[bytes, _Ready] = {}

    def answer(self, request: bytes, context: Context) -> bytes | None:
        """As `AtOnce` has it."""
        began = time.monotonic()
        ready = self._ready.get(request)
        if ready is None or self._at_hand.copy(ready.tenant) is not ready.copy:
            ready = self._prepare(request)
            if ready is None:
                return None
        tenant, copy = ready.tenant, ready.copy
        identity = self._gate.admit_at_once(GET, tenant, context=context, held=copy.scopes)
        if identity is None:
            return None
        self._at_hand.note_handed_out(tenant, caller=identity, generation=copy.generation)
        self._at_hand.note_used(tenant)
        self._told(time.monotonic() - began, identity, context)
        return ready.answer

    def _prepare(self, request: bytes) -> _Ready | None:
        tenant = _tenant_of(request)
        copy = None if tenant is None else self._at_hand.copy(tenant)
        if tenant is None or copy is None:
            return None
        if not copy.written:
            copy.written = lasting_part(copy.served())
        left = copy.left(ahead=_KEPT)
        answer = copy.written + passing_part(copy.access_token, left=left)
        if not self._ready:
            # All are forgotten at once: each was made within the time.
            asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._ready.clear)
        ready = self._ready[request] = _Ready(tenant, copy, answer)
        return ready


class AsAnyCall:
    """Tells of each call as the long way does, for a log that has a line of every token."""

    def __init__(self, observer: Observer, calls: CallObserver) -> None:
        """Both as the long way has them."""
        self._observer = observer
        self._calls = calls

    def __call__(self, seconds: float, identity: str, context: Context) -> None:
        """As `Told` has it."""
        set_current_request(context.invocation_metadata() or ())
        set_current_caller(Caller(identity=identity, rpc=GET))
        self._observer.observe(TokenServed(source=Source.MEMORY, degraded=False))
        duration = timedelta(seconds=seconds)
        self._calls.call_ended(method=GET, code="OK", reason="", duration=duration, tenant=None)


def _tenant_of(request: bytes) -> str | None:
    """Returns whose token is asked for; None: there is more in the request, or it is none.

    A tenant that is malformed is in no memory.
    """
    try:
        asked = GetAccessTokenRequest.FromString(request)
    except DecodeError:
        return None
    return None if asked.HasField("rejected_generation") else asked.tenant
