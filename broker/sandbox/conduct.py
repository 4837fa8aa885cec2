"""How one request is conducted: its faults, in order, around what the server would do anyway.

Steps before processing come first. If none of them has answered, the server acts. Then the steps
after it, which may wait, change the answer, or end the connection. Says how the request ends and
sends it; which steps there are is decided in `faults`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import assert_never

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from broker.sandbox.faults import (
    Alter,
    Cut,
    Delay,
    Drop,
    Half,
    Hang,
    Hold,
    Revoke,
    Step,
    Substitute,
    name_of,
)
from broker.sandbox.oauth import Answer
from broker.sandbox.waiting import Release, WaitingRoom
from broker.sandbox.wire import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Answer; with a cut, only half of it."""

    answer: Answer
    cut: Cut | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End the connection without an answer."""

    cut: Cut = "reset"


Ending = Deliver | End


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request, as far as faults are concerned."""

    wire: Wire
    company: str | None
    steps: tuple[Step, ...]
    act: Callable[[], Answer] = field(repr=False)
    """What the server does, once, at the moment of processing."""
    revoke: Callable[[], None] = field(repr=False)
    """What the customer does when told to disconnect."""


async def conduct(visit: Visit, *, room: WaitingRoom) -> Ending:
    """Take the steps and act; how it ends."""
    ending: Ending | None = None
    for step in visit.steps:
        if step.when == "before" and ending is None:
            ending = await _take(step, None, visit=visit, room=room)
    if ending is None:
        ending = Deliver(answer=visit.act())
    for step in visit.steps:
        if step.when == "after" and isinstance(ending, Deliver):
            ending = await _take(step, ending, visit=visit, room=room) or ending
    return ending


async def _take(
    step: Step, so_far: Deliver | None, *, visit: Visit, room: WaitingRoom
) -> Ending | None:
    """Take one step; what it makes of the ending so far, none if nothing."""
    match step:
        case Delay() | Hold() | Hang():
            return await _wait(step, visit, room)
        case Revoke():
            visit.revoke()
            return None
        case Substitute(answer=answer):
            return Deliver(answer=answer)
        case Drop(cut=cut):
            return End(cut=cut)
        case Half(cut=cut):
            return replace(so_far, cut=cut) if so_far else None
        case Alter():
            return replace(so_far, answer=_altered(so_far.answer, step)) if so_far else None
        case never:
            assert_never(never)


async def _wait(step: Delay | Hold | Hang, visit: Visit, room: WaitingRoom) -> Ending | None:
    release: Release
    match step:
        case Delay(seconds=seconds):
            release = await room.pause(seconds)
        case Hold():
            release = await room.hold(company=visit.company, why=name_of(step))
        case Hang():
            release = await room.hang(visit.wire, company=visit.company, why=name_of(step))
        case never:
            assert_never(never)
    return End() if release == "reset" else None


def _altered(answer: Answer, step: Alter) -> Answer:
    if answer.status != HTTPStatus.OK:
        return answer
    try:
        fields = {**json.loads(answer.body), **step.replace}
    except ValueError:  # a step before this one put rubbish there
        return answer
    kept = {name: value for name, value in fields.items() if name not in step.omit}
    return replace(answer, body=json.dumps(kept).encode())


class ConductedResponse:
    """Sends an ending, and says whether all of it went to an open connection."""

    def __init__(self, ending: Ending, *, wire: Wire, on_sent: Callable[[bool], None]) -> None:
        """Send `ending` when called by Starlette, then call `on_sent`."""
        self._ending = ending
        self._wire = wire
        self._on_sent = on_sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as ASGI has it."""
        is_delivered = False
        try:
            is_delivered = await self._send(scope, receive, send)
        finally:
            self._wire.unwatch()
            self._on_sent(is_delivered)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> bool:
        ending = self._ending
        if isinstance(ending, End):
            await self._wire.end(ending.cut)
            return False
        if ending.cut is not None:
            await _send_half(ending.answer, send)
            await self._wire.end(ending.cut)
            return False
        # Only what is known by now counts: a client that goes a moment later, while the answer is
        # on its way, cannot be told from one that reads it.
        was_open = self._wire.is_open
        await _response(ending.answer)(scope, receive, send)
        return was_open


async def _send_half(answer: Answer, send: Send) -> None:
    headers = _response(answer).raw_headers
    half = answer.body[: len(answer.body) // 2]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": half, "more_body": True})


def _response(answer: Answer) -> Response:
    return Response(
        answer.body,
        status_code=answer.status,
        headers=dict(answer.headers),
        media_type=answer.content_type,
    )
