"""The connections: how they are made, and what their failures are called.

httpx's transport without its client: that would follow redirects, keep cookies, read proxies and
`.netrc`, and log addresses. No retries, no HTTP/2, no proxy, certificates checked.
"""

from __future__ import annotations

import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, cast

import h11
import httpcore
import httpx

from broker import __version__

MOST_BYTES: Final = 1024 * 1024
"""Of a body. Tokens have several kilobytes; the rest is read past."""

HEADERS: Final = {
    "Accept": "application/json",
    # An answer cut short is still read as far as it came; compressed, it often could not be.
    "Accept-Encoding": "identity",
    # One connection a request. On one that is used again, one may cross the server's end of it:
    # an unknown outcome, which may cost a customer. And what came behind an answer is read as the
    # next one, which is another grant's. Both are worth a handshake.
    "Connection": "close",
    "User-Agent": f"pleo-token-broker/{__version__}",
}

_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})

_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
"""Has zlib find out which of them it is."""

_STAGES: Final = {
    "connection.connect_tcp.started": "connect",
    "connection.start_tls.started": "tls",
    "http11.send_request_headers.started": "send",
}

TRANSPORT_ERRORS: Final = (httpx.HTTPError, OSError)
"""What a conversation ends with. OSError: httpcore lets TLS errors while reading through."""


def open_transport(
    *, connections: int, tls: ssl.SSLContext | None = None
) -> httpx.AsyncHTTPTransport:
    """Makes connections, so many at once, with a TLS context or with the usual authorities."""
    # None is kept: see HEADERS.
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=0)
    # Nothing of the environment: a proxy or a certificate bundle named there would see tokens that
    # the settings meant for Pleo alone (law 7).
    return httpx.AsyncHTTPTransport(verify=tls or True, trust_env=False, limits=limits)


class Progress:
    """How far a request is, as httpcore tells it in its `trace` extension."""

    def __init__(self) -> None:
        self.stage = "pool"
        self._connected: httpcore.AsyncNetworkStream | None = None

    async def note(self, event: str, info: Mapping[str, object]) -> None:
        """Takes note of an event."""
        self.stage = _STAGES.get(event, self.stage)
        made = info.get("return_value")
        if isinstance(made, httpcore.AsyncNetworkStream):
            self._connected = made

    async def abandon(self) -> None:
        """Closes what a cancelled TLS handshake leaves open: httpcore forgets it (1.0.9)."""
        if self.stage == "tls" and self._connected is not None:
            await self._connected.aclose()


class Body:
    """What was received of a body so far, up to a bound."""

    def __init__(self) -> None:
        self._kept = bytearray()

    async def read(self, response: httpx.Response) -> None:
        """Reads to the end, and closes the connection."""
        unpacking = _Unpacking(response.headers.get("content-encoding", ""))
        try:
            # Not httpx's ways of reading, which keep nothing back of what they unpack.
            async for chunk in cast("httpx.AsyncByteStream", response.stream):
                self._kept += unpacking.some(chunk, MOST_BYTES - len(self._kept))
        finally:
            await response.aclose()

    def __bytes__(self) -> bytes:
        return bytes(self._kept)


class _Unpacking:
    """Unpacks what comes compressed though nobody asked for it, and never more than there is room.

    httpx unpacks a chunk as a whole, and encodings within encodings: 64 KiB become as many
    gigabytes as a server likes. What is not compressed, or more than once, stays as it came.
    """

    def __init__(self, encoding: str) -> None:
        is_known = encoding.strip().lower() in _COMPRESSED
        self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB) if is_known else None

    def some(self, chunk: bytes, room: int) -> bytes:
        """Returns what the next chunk holds, up to so many bytes."""
        if self._zlib is None or room <= 0:  # zero would mean without bounds
            return chunk[: max(room, 0)]
        try:
            return self._zlib.decompress(chunk, room)
        except zlib.error:
            self._zlib = None  # a header that lies must not cost what is there to be read
            return chunk[:room]


def unsent_code(error: Exception, stage: str) -> str:
    """Names a failure before the first byte of the body."""
    match error:
        case TimeoutError() | httpx.TimeoutException():
            return f"{stage}_timeout"
        case _ if _was_caused_by(error, socket.gaierror):
            return "dns"
        case _ if _was_caused_by(error, ConnectionRefusedError):
            return "connect_refused"
        case _ if _was_caused_by(error, ssl.SSLError) or stage == "tls":
            return "tls"
        case _:
            return "connect_failed"


def lost_code(error: Exception, *, has_head: bool) -> str:
    """Names a failure after it; `has_head`: status and headers had come."""
    match error:
        case TimeoutError() | httpx.TimeoutException():
            return "read_timeout"
        case _ if has_head:
            return "cut_short"
        case _ if _was_caused_by(error, h11.RemoteProtocolError):
            return "unreadable"
        case _:
            return "connection_lost"


def _was_caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(each, kind) for each in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Gives an error and all behind it. httpcore's pool hides causes, but leaves them in place."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):  # of the addresses that a name has
            for each in error.exceptions:
                yield from _causes(each)
        error = error.__cause__ or error.__context__
