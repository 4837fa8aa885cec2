"""One `serve` process, as a test knows it: its log, its addresses, its end.

All that it writes on stderr goes to a file, which is read as it grows: the log's lines become
events to wait for, and where a test fails, `tell` shows what was said last.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc.aio

from broker.v1 import grant_service_pb2_grpc, token_service_pb2_grpc
from support.waiting import until

_TOLD_LINES: Final = 60
"""Where a test fails: what led to it is among the last ones."""

Event = dict[str, object]
"""A line of a broker's log."""


class BrokerFailedError(AssertionError):
    """A broker did not do what the test stands on; the message ends with what it said last."""


class Replica:
    """One `serve`."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        """Takes note of a process that was started with `log` as its stderr."""
        self.name = name
        self.events: list[Event] = []
        self._popen = popen
        self._log = log
        self._read_to = 0
        self._told = 0
        self._channels: list[grpc.aio.Channel] = []

    def __repr__(self) -> str:
        """Name and state, for failed tests."""
        return f"<{self.name}: pid {self._popen.pid}, status {self.status}>"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def log(self) -> Path:
        """Where its stderr goes."""
        return self._log

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._popen.poll()

    @property
    def said(self) -> str:
        """All that it wrote on stderr."""
        return self._log.read_text(errors="replace")

    def seen(self, event: str, **fields: object) -> list[Event]:
        """Returns the events of this name and with these fields, oldest first."""
        self._take_in()
        wanted = {"event": event, **fields}.items()
        return [each for each in self.events if wanted <= each.items()]

    def told_of(self, tenant: str) -> list[Event]:
        """Returns the events of a tenant, oldest first."""
        self._take_in()
        return [each for each in self.events if each.get("tenant") == tenant]

    def _take_in(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._read_to)
            new = log.read()
        whole, newline, _ = new.rpartition(b"\n")
        self._read_to += len(whole + newline)
        self.events += _events(whole.decode().splitlines())

    async def saw(self, event: str, *, count: int = 1, **fields: object) -> Event:
        """Waits for an event that its log tells of, and returns the newest.

        Raises:
            BrokerFailedError: it ended before.
            TimeoutError: it did not come.
        """
        await until(lambda: len(self.seen(event, **fields)) >= count or self.status is not None)
        found = self.seen(event, **fields)
        if len(found) < count:
            raise BrokerFailedError(f"{self!r} ended before {event}; it said:\n{self.said}")
        return found[-1]

    @property
    def target(self) -> str:
        """Its gRPC address, once it listens."""
        return str(self.seen("broker_started")[0]["grpc"])

    @property
    def ops_url(self) -> str:
        """Its address for operations, once it listens."""
        return str(self.seen("broker_started")[0]["ops"])

    def channel(self) -> grpc.aio.Channel:
        """Opens one more connection, closed with the fleet."""
        # Channels to one address share a connection unless they are told not to.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(self.target, options)
        self._channels.append(channel)
        return channel

    @property
    def tokens(self) -> token_service_pb2_grpc.TokenServiceAsyncStub:
        """Its TokenService, over its first connection."""
        return token_service_pb2_grpc.TokenServiceStub(self.first_channel)

    @property
    def grants(self) -> grant_service_pb2_grpc.GrantServiceAsyncStub:
        """Its GrantService, over its first connection."""
        return grant_service_pb2_grpc.GrantServiceStub(self.first_channel)

    @property
    def first_channel(self) -> grpc.aio.Channel:
        """Its first connection."""
        return self._channels[0] if self._channels else self.channel()

    def terminate(self) -> None:
        """Asks it to end, as Kubernetes does."""
        self._popen.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Waits for its end, and returns the exit status."""
        await until(lambda: self.status is not None)
        return self._popen.returncode

    async def hang_up(self) -> None:
        """Closes the connections to it."""
        for channel in self._channels:
            await channel.close()
        self._channels.clear()

    def kill(self) -> None:
        """Ends it as a crash would. Does nothing where it has ended."""
        self._popen.kill()
        self._popen.wait()

    def tell(self) -> None:
        """Writes to stdout what it said since the last time; pytest shows it for failed tests."""
        lines = self.said.splitlines()
        new = lines[self._told :][-_TOLD_LINES:]
        self._told = len(lines)
        sys.stdout.write("\n".join([f"--- {self!r}", *new, ""]))


def _events(lines: list[str]) -> Iterator[Event]:
    """Gives what is JSON; gRPC's core and the command line write plain text."""
    for line in lines:
        if line.startswith("{"):
            yield json.loads(line)
