"""A unary gRPC call as it travels: HTTP/2 frames, made once and sent as often as one likes.

For load that costs next to nothing to make, so that what is waited for is the server. Knows as much
of RFC 9113 as a caller needs who sends the same request again and again on a new connection: no
compression of headers, and windows as large as they may be. An answer with a message is a success:
an error has trailers only.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Final, cast

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_INITIAL_WINDOW_SIZE: Final = 4
_WIDEST: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535


class BrokenOffError(RuntimeError):
    """The server ended a call or the connection, or answered without a message."""


class Wave(asyncio.Protocol):
    """One connection with some calls on it that go at once."""

    def __init__(self, *, authority: str, method: str, message: bytes) -> None:
        """`message`: the request, serialised."""
        self._head = _headers(authority, method)
        self._body = b"\0" + struct.pack("!L", len(message)) + message
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._answers: dict[int, bytearray] = {}
        self._next = 1
        self._over: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        # Not by isinstance: uvloop's are of classes of their own.
        self._transport = cast("asyncio.Transport", transport)
        widest = struct.pack("!HL", _INITIAL_WINDOW_SIZE, _WIDEST)
        grown = struct.pack("!L", _WIDEST - _FIRST_WINDOW)
        self._transport.write(
            _PREFACE + _frame(_SETTINGS, 0, 0, widest) + _frame(_WINDOW, 0, 0, grown)
        )

    async def call(self, count: int) -> tuple[float, set[bytes]]:
        """Makes so many calls; returns when the last answer was there, and what was answered.

        Raises:
            BrokenOffError: one failed.
        """
        assert self._transport is not None
        self._over = asyncio.get_running_loop().create_future()
        streams = range(self._next, self._next + 2 * count, 2)
        self._next = streams.stop
        self._answers = {each: bytearray() for each in streams}
        answers = list(self._answers.values())
        self._transport.write(
            b"".join(
                _frame(_HEADERS, _END_HEADERS, each, self._head)
                + _frame(_DATA, _END_STREAM, each, self._body)
                for each in streams
            )
        )
        last = await self._over
        if not all(answers):
            raise BrokenOffError("a call failed")
        return last, {bytes(each) for each in answers}

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._unread += data
        while len(self._unread) >= 9:
            length = int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < 9 + length:
                return
            kind, flags, stream = struct.unpack("!BBL", self._unread[3:9])
            payload = bytes(self._unread[9 : 9 + length])
            del self._unread[: 9 + length]
            self._take(kind, flags, stream, payload)

    def connection_lost(self, _: Exception | None) -> None:
        """See asyncio."""
        self._break("the connection was lost")

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _DATA and stream in self._answers:
            self._answers[stream] += payload
        elif kind in {_RST, _GOAWAY}:
            self._break("a call was ended")
        elif kind in {_SETTINGS, _PING} and not flags & _ACK:
            told = payload if kind == _PING else b""
            self._transport.write(_frame(kind, _ACK, 0, told))
        if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
            self._end(stream)

    def _end(self, stream: int) -> None:
        self._answers.pop(stream, None)
        if not self._answers and self._over is not None and not self._over.done():
            self._over.set_result(time.perf_counter())

    def _break(self, why: str) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(BrokenOffError(why))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack("!BBL", kind, flags, stream) + payload


def _headers(authority: str, method: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # Literal, never indexed, not compressed (RFC 7541 §6.2.3).
    return b"".join(b"\x10" + _string(name) + _string(value) for name, value in fields.items())


def _string(text: str) -> bytes:
    octets = text.encode()
    # One octet of length: up to 126 (RFC 7541 §5.1).
    if len(octets) >= 0x7F:
        raise ValueError(text)
    return bytes([len(octets)]) + octets
