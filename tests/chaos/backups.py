"""Backups of a PostgreSQL of the wheel, and the ways to put one back, with PostgreSQL's own tools.

    backup = await Backup.take(run, postgres)
    …
    await backup.put_back("snapshot")

What comes back holds what it held when the backup was taken, under the same address.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from broker.dev.child import Program, run_to_end
from broker.dev.embedded import EmbeddedServer
from broker.dev.postgres import Postgres
from broker.dev.rundir import RunDirectory
from support.fleet import until_true
from support.standby import ask, complete

Way = Literal["snapshot", "recovery", "dump"]
"""`snapshot`: a copy of the files, started as it is, under its old names. `recovery`: the same,
recovered as `recovery_target` says, which begins a new timeline. `dump`: read into a new database
of the same server.
"""

DATABASE: Final = "broker"

_PROGRAMS: Final = ("bin/pg_basebackup", "bin/pg_dump", "bin/pg_restore")

_SECONDS: Final = 60.0
"""For a few hundred rows, on a busy machine."""

_RECOVERY: Final = """
restore_command = 'false'
recovery_target = 'immediate'
recovery_target_action = 'promote'
"""
"""To the end of the backup itself: it brings what it needs of the WAL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """Both kinds, taken at one moment in which nobody writes."""

    run: RunDirectory
    server: EmbeddedServer
    kind: Postgres
    copy: Path
    dump: Path

    @classmethod
    async def take(cls, run: RunDirectory, server: EmbeddedServer) -> Backup:
        """Takes it of a running server."""
        kind = server._kind  # noqa: SLF001 - where its files are
        if not isinstance(kind, Postgres):
            raise TypeError(kind)
        installation = Path(kind.program.command[0]).parents[1]
        await asyncio.to_thread(complete, installation, _PROGRAMS)
        below = kind.program.directory
        backup = cls(run=run, server=server, kind=kind, copy=below / "copy", dump=below / "dump")
        await backup._call("pg_basebackup", f"--pgdata={backup.copy}", "--wal-method=fetch",
                           "--checkpoint=fast", "--no-sync")  # fmt: skip
        await backup._call("pg_dump", "--format=custom", f"--file={backup.dump}", DATABASE)
        return backup

    async def put_back(self, way: Way) -> None:
        """Puts it back, and waits until the server answers; connections of the old one end."""
        if way == "dump":
            await self._read_dump()
            return
        await self.server.stop()
        await asyncio.to_thread(self._replace, way)
        await self.server.start()
        await until_true(self._is_writable)

    def _replace(self, way: Way) -> None:
        shutil.rmtree(self.kind.cluster)
        self.copy.rename(self.kind.cluster)
        if way == "recovery":
            (self.kind.cluster / "recovery.signal").touch()
            with (self.kind.cluster / "postgresql.auto.conf").open("a") as options:
                options.write(_RECOVERY)

    async def _is_writable(self) -> bool:
        return not await ask(self.server.url, "SELECT pg_is_in_recovery()")

    async def _read_dump(self) -> None:
        await ask(self.server.url, f"DROP DATABASE {DATABASE} WITH (FORCE)")
        await ask(self.server.url, f"CREATE DATABASE {DATABASE} TEMPLATE template0")
        await self._call("pg_restore", f"--dbname={DATABASE}", "--exit-on-error", str(self.dump))

    async def _call(self, name: str, *arguments: str) -> None:
        server = self.kind.program
        where = (f"--host={server.directory}", "--username=postgres")
        program = Program(
            name=name,
            command=[Path(server.command[0]).parent / name, *where, *arguments],
            directory=server.directory,
            log=self.run.path / f"{name}.log",
            account=server.account,
        )
        await run_to_end(self.run, program, _SECONDS)
