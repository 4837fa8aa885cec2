"""One token request on the wire: sent at most once, and listened for to the end.

The last check is in the body itself, at the moment when httpcore has written the headers and asks
for it: raising there sends no byte of the token. So DNS, TCP, TLS and the wait for a connection lie
before it, and "never sent" is known exactly. A process that is paused between the check and the
write sends late all the same; no client can close that window.

Giving up sending is not giving up reading: from `answer_by` on there is a last look at what the
socket holds, however late that is in the case of a process that was paused. Giving up aborts the
connection. What came of an answer that was cut short is read; it counts if it holds tokens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Final

import httpx

from broker.domain.answers import TOO_LATE, Answer, NotProcessed, Rotated, Unknown
from broker.domain.token_response import read_answer
from broker.pleo.transport import TRANSPORT_ERRORS, Body, Progress, lost_code, unsent_code
from broker.ports import Presentation, WireWindow

_LOG: Final = logging.getLogger(__name__)

LAST_LOOK_SECONDS: Final = 0.1
"""Long enough to decrypt and read what is there; the attempt's deadline allows for more."""


class TooLateError(Exception):
    """The body was asked for when it may not be sent any more."""


class TokenCall:
    """One request: how far it is, and what has come of it."""

    def __init__(self, window: WireWindow) -> None:
        self._window = window
        self._limit = asyncio.timeout_at(window.send_by)
        self._last_look: asyncio.TimerHandle | None = None
        self._progress = Progress()
        self._sent_at: float | None = None
        self._status: int | None = None
        self._headers: Mapping[str, str] = {}
        self._body = Body()

    async def make(
        self, transport: httpx.AsyncBaseTransport, request: httpx.Request, form: bytes
    ) -> Presentation:
        """Sends `form` with the head of `request`, once.

        Cancelled, it closes the connection and forgets the answer.
        """
        request.stream = _CheckedBody(self, form)
        request.extensions["trace"] = self._progress.note
        try:
            async with self._limit:
                await self._converse(transport, request)
            fault = None
        except TooLateError:
            fault = TOO_LATE
        except TRANSPORT_ERRORS as error:
            fault = self._name(error)
        except Exception:  # noqa: BLE001 - see below
            # uvloop and the parsers raise other errors, too. Whether it was sent is known all the
            # same, and must be settled: raised, an armed attempt would look abandoned.
            _LOG.exception("a token request failed as nobody foresaw")
            fault = "defect"
        return Presentation(
            answer=self._answer(fault), sent_at=self._sent_at, http_status=self._status
        )

    def about_to_send(self) -> None:
        """Makes the last check, and from here on counts the request as sent.

        Raises:
            TooLateError: it may not be sent.
        """
        self._refuse_too_late()
        self._window.on_sending()
        # Again: whoever was told may have written to a log that nobody read for a while.
        self._sent_at = self._refuse_too_late()
        # Sent is sent: from here on only the attempt's end may stop the listening (RFC 9700 §4.14).
        self._limit.reschedule(None)
        loop = asyncio.get_running_loop()
        self._last_look = loop.call_at(self._window.answer_by, self._look_a_last_time)

    def _refuse_too_late(self) -> float:
        now = asyncio.get_running_loop().time()
        if now > self._window.send_by:
            raise TooLateError
        return now

    def _look_a_last_time(self) -> None:
        """Counts from when this runs: a loop that stood still has not read what came meanwhile."""
        self._limit.reschedule(asyncio.get_running_loop().time() + LAST_LOOK_SECONDS)

    async def _converse(self, transport: httpx.AsyncBaseTransport, request: httpx.Request) -> None:
        try:
            response = await transport.handle_async_request(request)
            self._status, self._headers = response.status_code, response.headers
            await self._body.read(response)
        finally:
            if self._last_look is not None:
                self._last_look.cancel()
            await self._progress.abandon()

    def _name(self, error: Exception) -> str:
        if self._sent_at is None:
            return unsent_code(error, self._progress.stage)
        return lost_code(error, has_head=self._status is not None)

    def _answer(self, fault: str | None) -> Answer:
        if self._sent_at is None:
            # No fault: the server answered without having waited for the body.
            return NotProcessed(code=fault or "not_sent")
        if self._status is None:
            return Unknown(code=fault or "connection_lost")
        answer = read_answer(self._status, self._headers, bytes(self._body))
        return answer if fault is None else _cut_short(answer, fault)


class _CheckedBody(httpx.AsyncByteStream):
    """A body that is given out after the last check."""

    def __init__(self, call: TokenCall, form: bytes) -> None:
        self._call = call
        self._form = form

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._call.about_to_send()
        yield self._form


def _cut_short(answer: Answer, fault: str) -> Answer:
    """Says what an answer means whose end is missing, though it could be read.

    Tokens are tokens, and a 429 says all in its head. Anything else is no definite word.
    """
    match answer:
        case Rotated():
            return replace(answer, flags=(*answer.flags, "cut_short"))
        case NotProcessed():
            return answer
        case _:
            return Unknown(code=fault)
