"""A PostgreSQL with an asynchronous standby, behind one address that a failover moves.

    async with standby_pair(run) as pair:
        …            # pair.url leads to the primary
        await pair.cut()      # what is committed from now on does not reach the standby
        …
        await pair.fail_over()

Made from the wheel, of which the run's copy lacks what only standbys need.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from broker.dev.child import Program, run_to_end
from broker.dev.embedded import START_SECONDS, EmbeddedServer
from broker.dev.postgres import Postgres, make_cluster
from broker.dev.rundir import RunDirectory
from broker.dev.wheels import postgres_programs
from support.fleet import until_true

_FOR_STANDBYS: Final = ("bin/pg_basebackup", "lib/libpqwalreceiver.so")

_CUT: Final = ("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")

_RECEIVERS: Final = "SELECT count(*) FROM pg_stat_wal_receiver"

_HAS_ALL: Final = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbyPair:
    """Both servers, running."""

    primary: EmbeddedServer
    standby: EmbeddedServer
    address: Path
    """A link to the directory of whoever is the primary."""

    @property
    def url(self) -> str:
        """Where clients connect, whoever is the primary."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.address), safe='')}"

    async def cut(self) -> None:
        """Lets the standby have all that is committed, and nothing from now on."""
        newest = await ask(self.primary.url, "SELECT pg_current_wal_lsn()::text")

        async def has_all() -> bool:
            return bool(await ask(self.standby.url, _HAS_ALL, newest))

        async def is_cut() -> bool:
            return await ask(self.standby.url, _RECEIVERS) == 0

        await until_true(has_all)
        for statement in _CUT:
            await ask(self.standby.url, statement)
        await until_true(is_cut)

    async def fail_over(self) -> None:
        """Kills the primary, promotes the standby, and moves the address."""
        await self.primary.kill()
        await ask(self.standby.url, "SELECT pg_promote()")
        self.lead_to(self.standby)

    def lead_to(self, server: EmbeddedServer) -> None:
        """Moves the address, in one step."""
        new = self.address.with_suffix(".new")
        new.symlink_to(server._kind.program.directory)  # noqa: SLF001 - where its socket is
        new.rename(self.address)


@asynccontextmanager
async def standby_pair(run: RunDirectory) -> AsyncIterator[StandbyPair]:
    """Starts both, the standby as far as the primary.

    Raises:
        WheelMissingError: the wheel is not installed.
    """
    first = await make_cluster(run, "primary", port=None, fsync=False)
    primary = EmbeddedServer(run, first)
    try:
        await primary.start()
        second = await _copy(run, first)
        standby = EmbeddedServer(run, second)
        try:
            await standby.start()
            pair = StandbyPair(primary=primary, standby=standby, address=run.path / "address")
            pair.lead_to(primary)
            yield pair
        finally:
            await standby.stop()
            second.forget()
    finally:
        await primary.stop()
        first.forget()


async def ask(url: str, statement: str, *arguments: object) -> object:
    """Runs one statement on a connection of its own; returns its first value."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


async def _copy(run: RunDirectory, primary: Postgres) -> Postgres:
    """Returns a standby of a running primary."""
    program = primary.program
    directory = run.path / "standby"
    directory.mkdir(mode=0o700)
    if program.account is not None:
        os.chown(directory, program.account.uid, program.account.gid)
    cluster = directory / "cluster"
    programs = Path(program.command[0]).parent
    await asyncio.to_thread(complete, programs.parent, _FOR_STANDBYS)
    copying = Program(
        name="pg_basebackup",
        command=[
            programs / "pg_basebackup",
            f"--host={program.directory}",
            "--username=postgres",
            f"--pgdata={cluster}",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ],
        directory=directory,
        log=run.path / "standby.log",
        account=program.account,
    )
    await run_to_end(run, copying, START_SECONDS)
    command = [
        _moved(part, (primary.cluster, cluster), (program.directory, directory))
        for part in program.command
    ]
    standby = replace(
        program, name="standby", command=command, directory=directory, log=copying.log
    )
    return replace(primary, program=standby, cluster=cluster)


def _moved(part: str | Path, *moves: tuple[Path, Path]) -> str:
    moved = str(part)
    for before, after in moves:
        moved = moved.replace(str(before), str(after))
    return moved


def complete(installation: Path, names: Iterable[str]) -> None:
    """Copies programs and libraries of the wheel to where a run has its own copy."""
    source = postgres_programs().parent
    for name in names:
        if not (installation / name).exists():
            shutil.copy(source / name, installation / name)
            (installation / name).chmod(0o755)
