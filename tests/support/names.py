"""A name server for one name, whose addresses change: what a headless Service is to callers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, cast

NAME: Final = "token-broker.test"

_HEADER: Final = struct.Struct("!6H")
_ADDRESS: Final = 1  # the type of IPv4 addresses (RFC 1035 §3.2.2)
_SAID: Final = 0x8180
"""A response to a recursive question, without error."""

_ANSWER: Final = struct.Struct("!HHHIH")
_THE_QUESTIONS_NAME: Final = 0xC00C
"""A pointer to right behind the header (RFC 1035 §4.1.4)."""


@dataclass(slots=True, eq=False)
class Names(asyncio.DatagramProtocol):
    """Answers whatever name is asked for, and says for no time that it holds."""

    addresses: list[str]
    port: int = 0
    _transport: asyncio.DatagramTransport | None = field(default=None, init=False)

    @property
    def target(self) -> str:
        """What comes before `:PORT` of a gRPC address."""
        return f"dns://127.0.0.1:{self.port}/{NAME}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio has it."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """As asyncio has it."""
        number, _, _, *_ = _HEADER.unpack_from(data)
        ends = data.index(b"\0", _HEADER.size) + 5
        question = data[_HEADER.size : ends]
        (kind,) = struct.unpack("!H", question[-4:-2])
        found = self.addresses if kind == _ADDRESS else []
        said = [_HEADER.pack(number, _SAID, 1, len(found), 0, 0), question]
        for address in found:
            said += [
                _ANSWER.pack(_THE_QUESTIONS_NAME, _ADDRESS, 1, 0, 4),
                socket.inet_aton(address),
            ]
        if self._transport is not None:
            self._transport.sendto(b"".join(said), addr)


@asynccontextmanager
async def name_server(*addresses: str) -> AsyncIterator[Names]:
    """Listens on a free loopback port."""
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(
        lambda: Names(list(addresses)), local_addr=("127.0.0.1", 0)
    )
    try:
        yield names
    finally:
        transport.close()
