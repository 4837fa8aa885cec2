"""A child process of a run: started in its own session, named to the watchdog, ended on request.

Knows processes, signals and log files, and no server. `subprocess` and not asyncio's: it takes a
user on every event loop, is bound to none of them, and needs no thread to wait in.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.dev.rundir import RunDirectory
from broker.dev.wheels import Account

# Short beside the 50 ms in which the faster of the two servers starts, and cheap to repeat.
POLL_SECONDS: Final = 0.01

_LOG_TAIL_BYTES: Final = 2000


class ServerStartError(RuntimeError):
    """A program ended, or was not ready in time; the message ends with what it said last."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        self.last_words = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        super().__init__(f"{name} {what}; it said:\n{self.last_words or '(nothing)'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to start: arguments without secrets, where, as whom (None: as the present user)."""

    name: str
    command: Sequence[str | Path]
    directory: Path
    # Not in the directory: there the program's user could put a link in its place, which root would
    # then follow.
    log: Path
    account: Account | None = None


class Child:
    """A running program. Safe to end twice, and to end when it is gone already."""

    def __init__(self, run: RunDirectory, program: Program) -> None:
        """Starts it.

        Raises:
            ServerStartError: the system does not start it, as when root may not become another
            user.
        """
        self._run = run
        self._program = program
        self._popen = _popen(program)
        try:
            run.started(self._popen.pid)
        except OSError:
            self._popen.kill()
            self._popen.wait()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        status = self._popen.poll()
        if status is not None:
            self._run.ended(self.pid)
        return status

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, unless the program is gone."""
        self._popen.send_signal(number)

    async def ends_within(self, seconds: float) -> bool:
        """Waits, and says whether the program has ended. Safe to cancel and to repeat."""
        try:
            async with asyncio.timeout(seconds):
                while self.status is None:
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            return False
        return True

    async def end(self, *attempts: tuple[signal.Signals, float]) -> None:
        """Sends each signal and gives it its seconds, and at last SIGKILL."""
        for number, seconds in attempts:
            self.send(number)
            if await self.ends_within(seconds):
                return
        self.kill()

    def kill(self) -> None:
        """Sends SIGKILL and waits for it to act, which takes no longer than the kernel does."""
        self.send(signal.SIGKILL)
        self._popen.wait()
        self._run.ended(self.pid)

    def start_error(self, what: str) -> ServerStartError:
        """Returns an error that tells what the program said last."""
        return ServerStartError(self._program.name, what, self._program.log)


def _popen(program: Program) -> subprocess.Popen[bytes]:
    account = program.account
    # Nothing of our environment: a PGDATA, PGPORT or LC_ALL of the developer's shell would change
    # the server.
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    with program.log.open("ab") as log:
        try:
            return subprocess.Popen(
                program.command,
                cwd=program.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches the whole foreground process group: out of it, so that the run ends
                # them in order.
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerStartError(program.name, f"does not start: {error}", program.log) from error


async def run_to_end(run: RunDirectory, program: Program, within: float) -> None:
    """Runs a program and waits for its end, at most the given seconds.

    Raises:
        ServerStartError: it failed, or took longer.
    """
    running = Child(run, program)
    try:
        if not await running.ends_within(within):
            raise running.start_error(f"was not done after {within:g} s")
        if running.status != 0:
            raise running.start_error(f"ended with status {running.status}")
    finally:
        running.kill()
