"""Waits on loopback for the one redirect that answers an authorization (RFC 8252 §7.3).

Listens where the redirect URI says, answers exactly its path, and takes no answer but the one with
our state: anything else that knocks is refused, and the waiting goes on. The page that it shows
knows nothing and loads nothing.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from broker.cli.failing import CommandFailed
from broker.cli.redirect import Loopback, NotOursError, Redirected, read_redirect

_NO_SUCH_FAMILY: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_HEAD_SECONDS: Final = 10.0
"""For a request to arrive. It comes from this machine: who takes longer opened a connection to
have one, as browsers do."""

_LONGEST_HEAD: Final = 64 * 1024
"""Bytes. Browsers send all cookies of `localhost`, whichever port they came from."""

_BACKLOG: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    status: HTTPStatus
    text: str

    def encode(self) -> bytes:
        """Returns a whole HTTP answer."""
        body = (
            "<!doctype html><meta charset=utf-8><title>token-broker</title>"
            f"<p style='font:1.2em sans-serif;margin:3em'>{self.text}</p>\n"
        ).encode()
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            "Content-Type: text/html; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
            # The address of the page holds the code.
            "Referrer-Policy: no-referrer\r\n"
            "Cache-Control: no-store\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode("ascii") + body


_THANKS: Final = _Page(
    status=HTTPStatus.OK, text="You can close this window: the terminal tells how it went."
)
_NOT_OURS: Final = _Page(
    status=HTTPStatus.BAD_REQUEST, text="This is not the answer that is waited for."
)
_ELSEWHERE: Final = _Page(status=HTTPStatus.NOT_FOUND, text="There is nothing here.")


@asynccontextmanager
async def listen_for_redirect(
    address: Loopback, *, state: str
) -> AsyncIterator[asyncio.Future[Redirected]]:
    """Listens as long as the context lasts; gives what the redirect will bring.

    `state`: of the authorization that is waited for.

    Raises:
        CommandFailed: the address cannot be listened on.
    """
    listening = _Listening(path=address.path, state=state)
    async with AsyncExitStack() as stack:
        for listener in _listeners(address):
            stack.callback(listener.close)
            server = await asyncio.start_server(listening.serve, sock=listener, limit=_LONGEST_HEAD)
            stack.callback(server.close)
        try:
            yield listening.answer
        finally:
            await listening.hang_up()


class _Listening:
    """What is waited for, and who is connected."""

    def __init__(self, *, path: str, state: str) -> None:
        self.answer: asyncio.Future[Redirected] = asyncio.get_running_loop().create_future()
        self._path = path
        self._state = state
        self._connected: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request."""
        self._connected[writer] = asyncio.Event()
        # A browser that goes away, sends rubbish or nothing: nobody is there to be told.
        with suppress(OSError, TimeoutError, EOFError, ValueError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            redirected, page = self._judge(head)
            writer.write(page.encode())
            await writer.drain()
            self._take(redirected)
        writer.close()
        self._connected.pop(writer).set()

    async def hang_up(self) -> None:
        """Ends the connections that have asked nothing, as a browser opens them to have one."""
        connected = list(self._connected.items())
        for writer, _ in connected:
            writer.transport.abort()
        for _, is_served in connected:
            await is_served.wait()

    def _judge(self, head: bytes) -> tuple[Redirected | None, _Page]:
        """Reads a request line (RFC 9112 §3); the rest of the head says nothing to us."""
        method, target, _version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        if method != "GET" or target.partition("?")[0] != self._path:
            return None, _ELSEWHERE
        try:
            return read_redirect(target, state=self._state), _THANKS
        except NotOursError:
            return None, _NOT_OURS

    def _take(self, redirected: Redirected | None) -> None:
        if redirected is not None and not self.answer.done():
            self.answer.set_result(redirected)


def _listeners(address: Loopback) -> Iterator[socket.socket]:
    """Opens what the host stands for.

    `localhost` is both families, and a browser chooses: on a port that somebody else has in one of
    them the code would be theirs.
    """
    both = ("127.0.0.1", "::1") if address.host.lower() == "localhost" else (address.host,)
    for host in both:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            yield socket.create_server((host, address.port), family=family, backlog=_BACKLOG)
        except OSError as error:
            if error.errno in _NO_SUCH_FAMILY and host == "::1" != address.host:
                continue
            raise CommandFailed(
                f"cannot listen on {host} port {address.port}: {error.strerror}",
                hint="end what listens there, or use --paste",
            ) from None
