"""The role that brokers serve as in the tests, which may do no more than it needs.

Roles are the server's and not a database's: it is made once, and what it may do comes with each
copy of the template.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from broker.store.connecting import TIMEOUTS

SERVICE_ROLE: Final = "token_broker_test_service"


def as_service(url: str) -> str:
    """Returns an address with that role in the place of the owner's; the password stays."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    _, colon, password = login.partition(":")
    return urlunsplit(parts._replace(netloc=f"{SERVICE_ROLE}{colon}{password}{at or '@'}{host}"))


def timeouts_of(role: str) -> str:
    """Returns what gives a role what a pooler keeps from the server."""
    return "; ".join(f"ALTER ROLE {role} SET {name} = '{most}'" for name, most in TIMEOUTS.items())


async def make_service_role(url: str) -> None:
    """Makes the role, unless another pytest process has, with the password of the address."""
    password = urlsplit(url).password
    secret = f" PASSWORD '{password}'" if password else ""
    connection = await asyncpg.connect(url)
    try:
        with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            await connection.execute(
                f"CREATE ROLE {SERVICE_ROLE} LOGIN{secret}; {timeouts_of(SERVICE_ROLE)}"
            )
    finally:
        await connection.close()


async def as_service_where_prepared(url: str) -> str:
    """Returns the address of that role, or the same one where the database knows no such role.

    Nor where nobody can be asked, as of a server that a test starts later.
    """
    try:
        connection = await asyncpg.connect(url)
    except OSError:
        return url
    try:
        is_prepared = await connection.fetchval(
            "SELECT to_regclass('schema_migrations') IS NOT NULL AND EXISTS ("
            "SELECT FROM pg_roles WHERE rolname = $1 "
            "AND has_table_privilege(oid, to_regclass('schema_migrations'), 'SELECT'))",
            SERVICE_ROLE,
        )
    finally:
        await connection.close()
    return as_service(url) if is_prepared else url
