"""Bringing the schema up to date: numbered SQL files, each applied once, in order.

Any number of processes may do it at once: the lock that they wait for lives in the transaction of
the migration, so that a pooler may stand in between and nobody can forget to release it. All
pending files are applied in that one transaction, or none is. A file that was applied never
changes: its checksum is remembered.

Each file's first line says `-- minimum reader: N`: the oldest code, by its `SCHEMA_VERSION`, that
may work with the schema after it. A migration that older replicas survive leaves that number alone,
and a rolling update may follow it in its own time.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Final

from broker.store.connecting import CONNECT_SECONDS, Connection, Dialer
from broker.store.failures import store_failures
from broker.store.privileges import grant_privileges
from broker.store.restored import mark_restored

# Any number that no other part of the broker uses; "schema" on a telephone.
_LOCK: Final = 724362

# Another process may be at a migration that rewrites a table; waiting for a table is another
# matter, since everybody else then waits behind us.
_WAIT_FOR_OTHERS: Final = "5min"
_WAIT_FOR_TABLES: Final = "5s"

_MAKE_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        version integer PRIMARY KEY,
        name text NOT NULL,
        checksum text NOT NULL,
        minimum_reader integer NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""

_NOTE: Final = """
    INSERT INTO schema_migrations (version, name, checksum, minimum_reader) VALUES ($1, $2, $3, $4)
"""

_FILE: Final = re.compile(r"(\d{4})_\w+\.sql")
_READER: Final = re.compile(r"-- minimum reader: (\d+)\n")


class MigrationError(RuntimeError):
    """The files and what was applied do not belong together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str
    minimum_reader: int

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(
    url: str,
    *,
    dry_run: bool = False,
    tls: ssl.SSLContext | None = None,
    service_role: str | None = None,
    is_restored: bool = False,
) -> list[str]:
    """Applies what is pending; returns the names, oldest first. Safe to retry.

    `dry_run`: changes nothing and returns what would be applied. `service_role`: given just what
    the service needs, whether anything was pending or not. `is_restored`: the database was put back
    from a backup, and is marked so.

    Raises:
        MigrationError: a file was changed after it had been applied.
        UnfitRoleError: the role cannot be the service's. Nothing is changed.
        StoreUnavailable: PostgreSQL is away, or somebody uses a table for too long. Nothing is
        changed.
    """
    return await apply_migrations(
        url,
        bundled_migrations(),
        dry_run=dry_run,
        tls=tls,
        service_role=service_role,
        is_restored=is_restored,
    )


async def apply_migrations(
    url: str,
    migrations: Sequence[Migration],
    *,
    dry_run: bool = False,
    tls: ssl.SSLContext | None = None,
    service_role: str | None = None,
    is_restored: bool = False,
) -> list[str]:
    """Does what `migrate` does, with these migrations."""
    async with _transaction(url, tls) as connection:
        if not dry_run:
            await _wait_for_others(connection)
        pending = _pending(migrations, await _applied(connection))
        if not dry_run:
            await _apply(connection, pending)
            if service_role is not None:
                await grant_privileges(connection, service_role)
            if is_restored:
                await mark_restored(connection)
    return [migration.name for migration in pending]


def bundled_migrations() -> list[Migration]:
    """Returns the files that come with this code, oldest first."""
    return sorted(_read_files(), key=lambda migration: migration.version)


def _read_files() -> Iterator[Migration]:
    for file in (resources.files("broker.store") / "migrations").iterdir():
        match = _FILE.fullmatch(file.name)
        if match is not None:
            sql = file.read_text()
            yield Migration(
                version=int(match[1]),
                name=file.name.removesuffix(".sql"),
                sql=sql,
                minimum_reader=_minimum_reader(file.name, sql),
            )


def _minimum_reader(name: str, sql: str) -> int:
    match = _READER.match(sql)
    if match is None:
        raise MigrationError(f"{name} does not begin with the line '-- minimum reader: N'")
    return int(match[1])


@asynccontextmanager
async def _transaction(url: str, tls: ssl.SSLContext | None) -> AsyncIterator[Connection]:
    with store_failures():
        # Nothing here limits a statement: a migration may have to rewrite a table, and stopped half
        # way it would never get done.
        dialer = Dialer(tls=tls, settings={"application_name": "token-broker migrate"})
        connection = await dialer.dial(url)
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close(timeout=CONNECT_SECONDS)


async def _wait_for_others(connection: Connection) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = '{_WAIT_FOR_OTHERS}'")
    await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
    await connection.execute(f"SET LOCAL lock_timeout = '{_WAIT_FOR_TABLES}'")


async def _applied(connection: Connection) -> dict[int, str]:
    # Asked for and not assumed: a dry run on an empty database must not make it.
    if await connection.fetchval("SELECT to_regclass('schema_migrations')::text") is None:
        return {}
    rows = await connection.fetch("SELECT version, checksum FROM schema_migrations")
    return {row["version"]: row["checksum"] for row in rows}


def _pending(migrations: Sequence[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """Versions that only the database knows are newer code's, and none of our business."""
    changed = [
        migration.name
        for migration in migrations
        if applied.get(migration.version, migration.checksum) != migration.checksum
    ]
    if changed:
        raise MigrationError(f"changed after they were applied: {', '.join(changed)}")
    return [migration for migration in migrations if migration.version not in applied]


async def _apply(connection: Connection, pending: Sequence[Migration]) -> None:
    if pending:
        await connection.execute(_MAKE_TABLE)
    for migration in pending:
        await connection.execute(migration.sql)
        await connection.execute(
            _NOTE,
            migration.version,
            migration.name,
            migration.checksum,
            migration.minimum_reader,
        )
