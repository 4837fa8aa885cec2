"""The connection below HTTP: to end it rudely, and to learn that the client has gone.

ASGI hides the transport, so uvicorn's protocol is made to hand it to each request, as
`request.state.wire`. Decides nothing.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

# SO_LINGER on, for no time at all: closing sends RST and drops what is unsent (socket(7)).
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Wire:
    """One client's connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Hold `transport`, from when it was connected."""
        self._transport = transport
        self._lost = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []

    @property
    def is_open(self) -> bool:
        """Whether the client can still be answered, as far as the kernel has told us."""
        return not self._transport.is_closing()

    def watch(self, on_lost: Callable[[], None]) -> None:
        """Call `on_lost` when the client goes, or now if it has gone."""
        if self._lost.is_set():
            on_lost()
        else:
            self._watchers.append(on_lost)

    def unwatch(self) -> None:
        """Call nobody: the request is over."""
        self._watchers.clear()

    def lost(self) -> None:
        """Learn from the protocol that the connection is gone."""
        self._lost.set()
        watchers, self._watchers = self._watchers, []
        for on_lost in watchers:
            on_lost()

    async def end(self, cut: Literal["reset", "close"]) -> None:
        """End the connection: with RST, as a crashing server does, or with FIN."""
        self.unwatch()
        if cut == "reset":
            self._abort()
        else:
            self._transport.close()
        # uvicorn answers 500 by itself while it believes that the connection is there.
        await self._lost.wait()

    def send_promptly(self) -> None:
        """Switch Nagle's algorithm off.

        uvicorn writes head and body apart, which costs 40 ms of the client's delayed
        acknowledgement; asyncio sees to it only for sockets that name TCP as their protocol, and
        `socket.create_server` makes none such.
        """
        self._option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _abort(self) -> None:
        self._option(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()

    def _option(self, level: int, name: int, value: int | bytes) -> None:
        connected = self._transport.get_extra_info("socket")
        if self.is_open and connected is not None:
            # macOS refuses options once the client has gone, which asyncio is about to tell us.
            with suppress(OSError):
                connected.setsockopt(level, name, value)


class WireProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with the wire in each request's state.

    A subclass, since uvicorn takes its protocol as a class and offers no other way in.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        # Here, and not in uvicorn's settings: those change the logger of the whole process.
        self.access_log = False
        self._wire = Wire(transport)
        self._wire.send_promptly()
        self.app_state = {**self.app_state, "wire": self._wire}

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._wire.lost()


def wire_of(request: Request) -> Wire:
    """Return the connection that a request came on."""
    wire = request.state.wire
    if not isinstance(wire, Wire):
        raise TypeError("the sandbox is served by WireProtocol alone")
    return wire
