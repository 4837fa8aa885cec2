"""A real PgBouncer in transaction mode, between the broker and a PostgreSQL.

Few server connections, each transaction on another one than the last: what rests on a session
breaks here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from broker.dev.child import Program
from broker.dev.embedded import EmbeddedServer
from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from broker.dev.wheels import unprivileged_account
from broker.store.connecting import TIMEOUTS
from support.service_role import SERVICE_ROLE

POOLER_VARIABLE: Final = "TEST_PGBOUNCER"
"""The program, where it is not on the PATH."""

_DISMISS: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class NoPoolerError(RuntimeError):
    """PgBouncer is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooler:
    """Where a running one listens."""

    port: int

    def through(self, url: str) -> str:
        """Returns the address of the same database and role through it."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        return f"postgresql://{user}@127.0.0.1:{self.port}{parts.path}?sslmode=disable"


@dataclass(frozen=True, slots=True, kw_only=True)
class _PoolerKind:
    """One PgBouncer. Upholds `embedded.Kind`."""

    program: Program
    port: int
    endings: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 5.0),)

    @property
    def url(self) -> str:
        return f"postgresql://127.0.0.1:{self.port}"

    async def answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def may_start_later(self, last_words: str) -> bool:
        del last_words
        return False

    def forget(self) -> None:
        shutil.rmtree(self.program.directory, ignore_errors=True)


@asynccontextmanager
async def pooler(
    run: RunDirectory, database_url: str, *, name: str = "pgbouncer", takes_timeouts: bool = True
) -> AsyncIterator[Pooler]:
    """Starts one before the server of an address, for all its databases.

    `takes_timeouts`: whether it is told to pass over what the service asks of a session.

    Raises:
        NoPoolerError: there is none.
    """
    kind = _kind(run, name, _written(database_url, takes_timeouts=takes_timeouts), database_url)
    server = EmbeddedServer(run, kind)
    try:
        await server.start()
        yield Pooler(port=kind.port)
    finally:
        await server.stop()
        kind.forget()


async def dismiss(url: str) -> None:
    """Ends what a pooler keeps open to a database; `url` is the owner's, without a pooler."""
    connection = await asyncpg.connect(url)
    try:
        await connection.fetch(_DISMISS)
    finally:
        await connection.close()


def _kind(run: RunDirectory, name: str, written: str, database_url: str) -> _PoolerKind:
    found = os.environ.get(POOLER_VARIABLE) or shutil.which(
        "pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    )
    if found is None:
        raise NoPoolerError(f"PgBouncer is not installed, nor named by {POOLER_VARIABLE}")
    account, port = unprivileged_account(), free_port()
    directory = run.path / name
    directory.mkdir(mode=0o700)
    users, settings = directory / "users.txt", directory / "pgbouncer.ini"
    login = urlsplit(database_url)
    names = (login.username or "postgres", SERVICE_ROLE)
    users.write_text("".join(f'"{each}" "{login.password or ""}"\n' for each in names))
    settings.write_text(f"{written}listen_port = {port}\nauth_file = {users}\n")
    if account is not None:
        for each in (directory, users, settings):
            os.chown(each, account.uid, account.gid)
        os.chown(run.path, -1, account.gid)
        run.path.chmod(0o710)
    program = Program(
        name=name,
        command=[Path(found), "--quiet", settings],
        directory=directory,
        log=run.path / f"{name}.log",
        account=account,
    )
    return _PoolerKind(program=program, port=port)


def _written(database_url: str, *, takes_timeouts: bool) -> str:
    parts = urlsplit(database_url)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or "127.0.0.1"])[0]
    port = query.get("port", [str(parts.port or 5432)])[0]
    passed_over = f"ignore_startup_parameters = {','.join(TIMEOUTS)}\n" if takes_timeouts else ""
    return (
        f"[databases]\n* = host={host} port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        "unix_socket_dir =\nauth_type = trust\npool_mode = transaction\nserver_round_robin = 1\n"
        f"default_pool_size = 5\nmax_client_conn = 500\n{passed_over}"
    )
