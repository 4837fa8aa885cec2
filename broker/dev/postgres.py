"""PostgreSQL from the wheel: its cluster, its options, and how it is started and stopped.

Durable as in production unless told otherwise (`fsync`); `synchronous_commit` is never touched,
since the broker refuses a database without it. Leaves nothing outside its directory: dynamic shared
memory lies in the cluster, and the System V segment of a killed server is released.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from broker.dev.child import Program, run_to_end
from broker.dev.embedded import START_SECONDS
from broker.dev.rundir import RunDirectory
from broker.dev.wheels import (
    Account,
    copied_postgres,
    postgres_programs,
    programs_below,
    unprivileged_account,
)

_SUPERUSER: Final = "postgres"
_DEFAULT_PORT: Final = 5432

# A connection that hangs is given up and tried again; a healthy one takes 5 ms.
_CONNECT_SECONDS: Final = 2.0

_OPTIONS: Final = (
    # A stage of the chaos rounds has two dozen brokers of up to twelve, and the tests beside them.
    "max_connections=400",
    # Enough for a few thousand rows, and little on a laptop that runs other things.
    "shared_buffers=32MB",
    # The default on Linux is a file in /dev/shm, which outlives a killed server.
    "dynamic_shared_memory_type=mmap",
)

# SIGINT ends sessions and writes a checkpoint, SIGQUIT neither; both release shared memory.
_ENDINGS: Final = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 6.0))

# The seventh line of postmaster.pid: key and id of the System V segment.
_SEGMENT_LINE: Final = 6
_IPC_RMID: Final = 0  # <sys/ipc.h>, on Linux and macOS


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """One cluster. Upholds `embedded.Kind`."""

    program: Program
    cluster: Path
    port: int
    tcp: bool
    endings: tuple[tuple[signal.Signals, float], ...] = _ENDINGS

    @property
    def socket_url(self) -> str:
        """Where clients connect over the Unix socket."""
        folder = quote(str(self.program.directory), safe="")
        return f"postgresql://{_SUPERUSER}@/postgres?host={folder}&port={self.port}"

    @property
    def url(self) -> str:
        """Where clients connect: over TCP where that was asked for."""
        if self.tcp:
            return f"postgresql://{_SUPERUSER}@127.0.0.1:{self.port}/postgres?sslmode=disable"
        return self.socket_url

    async def answers(self) -> bool:
        """Says whether it takes connections; asks on the socket, which is certainly ours."""
        try:
            connection = await asyncpg.connect(self.socket_url, timeout=_CONNECT_SECONDS)
        except (
            OSError,
            TimeoutError,
            asyncpg.CannotConnectNowError,
            asyncpg.PostgresConnectionError,
        ):
            return False
        await connection.close()
        return True

    def may_start_later(self, last_words: str) -> bool:
        """Yes while children of a killed server still hold its shared memory."""
        return "is still in use" in last_words

    def forget(self) -> None:
        """Removes the cluster, and the shared memory of a server killed and not started again."""
        with suppress(OSError):  # a server that ended in order has removed the file
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            _, segment = lines[_SEGMENT_LINE].split()
            ctypes.CDLL(None).shmctl(int(segment), _IPC_RMID, None)
        shutil.rmtree(self.program.directory, ignore_errors=True)


def _options(directory: Path, *, port: int, tcp: bool, fsync: bool) -> list[str]:
    options = [
        *_OPTIONS,
        f"fsync={'on' if fsync else 'off'}",
        f"port={port}",
        f"listen_addresses={'127.0.0.1' if tcp else ''}",
        f"unix_socket_directories={directory}",
    ]
    return [part for option in options for part in ("-c", option)]


def _make_directory(run: RunDirectory, name: str, account: Account | None) -> Path:
    directory = run.path / name
    directory.mkdir(mode=0o700)
    if account is not None:
        os.chown(directory, account.uid, account.gid)
        # The way in, for that user's group alone, without the right to list.
        os.chown(run.path, -1, account.gid)
        run.path.chmod(0o710)
    return directory


def _programs(run: RunDirectory, account: Account | None) -> Path:
    if account is None:
        return postgres_programs()
    copies = run.path / "programs"
    return programs_below(copies) if copies.exists() else copied_postgres(copies)


async def make_cluster(run: RunDirectory, name: str, *, port: int | None, fsync: bool) -> Postgres:
    """Makes an empty cluster (0.7 s); with a port it is to listen on loopback as well.

    Raises:
        WheelMissingError: the wheel is not installed.
        NoAccountError: root has nobody to run it as.
        ServerStartError: initdb failed.
    """
    account = unprivileged_account()
    programs = _programs(run, account)
    directory = _make_directory(run, name, account)
    cluster = directory / "cluster"
    log = run.path / f"{name}.log"
    initdb: list[str | Path] = [
        programs / "initdb",
        f"--pgdata={cluster}",
        f"--username={_SUPERUSER}",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        # The same order and the same case rules on every machine.
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]
    making = Program(name="initdb", command=initdb, directory=directory, log=log, account=account)
    await run_to_end(run, making, START_SECONDS)
    number = port or _DEFAULT_PORT
    options = _options(directory, port=number, tcp=port is not None, fsync=fsync)
    command: list[str | Path] = [programs / "postgres", "-D", cluster, *options]
    program = Program(name=name, command=command, directory=directory, log=log, account=account)
    return Postgres(program=program, cluster=cluster, port=number, tcp=port is not None)
