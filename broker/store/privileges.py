"""What the role of the service may do in PostgreSQL, and whether it has just that.

Two roles: one migrates and owns the schema, the other serves. The one that serves can neither alter
the schema nor change what is on record of the past, so that whoever takes the service over cannot
wipe out their traces. The table below is the only place that says so: `migrate` grants it, anew
with every release, and `doctor` compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg

from broker.store.connecting import Connection
from broker.store.pool import Pool

_READ: Final = frozenset({"SELECT"})
_APPEND: Final = _READ | {"INSERT"}
_KEEP: Final = _APPEND | {"UPDATE"}
_ALL: Final = _KEEP | {"DELETE"}

NEEDED: Final[Mapping[str, frozenset[str]]] = {
    "schema_migrations": _READ,
    "home": _KEEP,
    "fleet": _READ | {"UPDATE"},
    "replicas": _ALL,
    # Never deleted: a tenant's numbers must not restart.
    "grants": _KEEP,
    "authorizations": _ALL,
    "imports": _ALL,
    "disclosures": _APPEND,
    "refresh_attempts": _APPEND,
    "grant_events": _APPEND,
}
"""What each table is used for. Partitions are reached through their table alone."""

COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    # Whose token a caller was given stays as it was written; how many, and until when, goes on.
    "disclosures": frozenset({"first_generation", "last_generation", "first_at", "last_at"}),
}
"""What may be updated of a table that may not be updated as a whole."""

FUNCTIONS: Final = ("make_attempts_partition(date)", "drop_attempts_before(date)")
"""For what the upkeep does in the owner's name."""

# A role that may act as the owner, or as a superuser, may do anything, whatever the lists say.
_STANDING: Final = """
    SELECT current_user AS role, current_schema() AS schema,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
    (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'grants'::regclass)
        AS is_owner,
    has_schema_privilege(current_schema(), 'CREATE') AS may_create
"""

_HAS: Final = """
    SELECT relname, array_agg(privilege ORDER BY privilege) AS has
    FROM pg_class CROSS JOIN unnest(
        ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
    ) AS privilege
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
    AND (relname = ANY($1::text[]) OR relispartition)
    AND has_table_privilege(pg_class.oid, privilege)
    GROUP BY relname ORDER BY relname
"""

# Of a table that may be updated as a whole, no column is told.
_HAS_COLUMNS: Final = """
    SELECT relname, privilege, array_agg(attname::text) AS columns
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS privilege
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
    AND (relname = ANY($1::text[]) OR relispartition)
    AND has_column_privilege(pg_class.oid, attnum, privilege)
    AND NOT has_table_privilege(pg_class.oid, privilege)
    GROUP BY relname, privilege ORDER BY relname, privilege
"""

_LACKING_FUNCTIONS: Final = """
    SELECT name FROM unnest($1::text[]) AS name
    WHERE NOT has_function_privilege(name::regprocedure, 'EXECUTE')
"""


_Parts: TypeAlias = Mapping[tuple[str, str], frozenset[str]]
"""By table and privilege, the columns of it that a role has it for, where not for all."""


class UnfitRoleError(RuntimeError):
    """A role that cannot be the service's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges:
    """How what a role may do differs from what it needs, in words."""

    role: str
    excess: Sequence[str]
    missing: Sequence[str]


async def grant_privileges(connection: Connection, role: str) -> None:
    """Gives a role just what the service needs. In the transaction of the migration.

    Raises:
        UnfitRoleError: there is no such role, or it may do all that the one that migrates may.
    """
    try:
        is_ours = await connection.fetchval("SELECT pg_has_role($1, current_user, 'MEMBER')", role)
    except asyncpg.UndefinedObjectError:
        raise UnfitRoleError(f"there is no role {role}") from None
    if is_ours:
        raise UnfitRoleError(f"{role} may do all that the role which migrates may")
    name = await connection.fetchval("SELECT quote_ident($1)", role)
    schema = await connection.fetchval("SELECT quote_ident(current_schema())")
    statements = [
        f"GRANT USAGE ON SCHEMA {schema} TO {name}",
        *(f"REVOKE ALL ON {table} FROM {name}" for table in NEEDED),
        *(
            f"GRANT {', '.join(sorted(some))} ON {table} TO {name}"
            for table, some in NEEDED.items()
        ),
        *(
            f"GRANT UPDATE ({', '.join(sorted(columns))}) ON {table} TO {name}"
            for table, columns in COLUMNS.items()
        ),
        *(f"GRANT EXECUTE ON FUNCTION {function} TO {name}" for function in FUNCTIONS),
    ]
    await connection.execute("; ".join(statements))


async def judge_privileges(pool: Pool) -> Privileges:
    """Compares what the role of a connection may do with what it needs.

    Raises:
        StoreUnavailable: try again.
    """
    (standing,) = await pool.fetch(_STANDING)
    has = {row["relname"]: frozenset(row["has"]) for row in await pool.fetch(_HAS, list(NEEDED))}
    parts = {
        (row["relname"], row["privilege"]): frozenset(row["columns"])
        for row in await pool.fetch(_HAS_COLUMNS, list(NEEDED))
    }
    lacking = await pool.fetch(_LACKING_FUNCTIONS, list(FUNCTIONS))
    return Privileges(
        role=standing["role"],
        excess=list(_almighty(standing))
        or [*_further(standing), *_excess(has), *_excess_columns(parts)],
        missing=[
            *(f"{', '.join(sorted(some))} on {table}" for table, some in _missing(has).items()),
            *_missing_columns(has, parts),
            *(f"EXECUTE on {row['name']}" for row in lacking),
        ],
    )


def _almighty(standing: asyncpg.Record) -> Sequence[str]:
    if standing["is_superuser"]:
        return ["is a superuser"]
    return ["owns the tables"] if standing["is_owner"] else []


def _further(standing: asyncpg.Record) -> Sequence[str]:
    return [f"CREATE in schema {standing['schema']}"] if standing["may_create"] else []


def _excess(has: Mapping[str, frozenset[str]]) -> Sequence[str]:
    over = {table: some - NEEDED.get(table, frozenset()) for table, some in has.items()}
    return [f"{', '.join(sorted(some))} on {table}" for table, some in over.items() if some]


def _missing(has: Mapping[str, frozenset[str]]) -> Mapping[str, frozenset[str]]:
    under = {table: some - has.get(table, frozenset()) for table, some in NEEDED.items()}
    return {table: some for table, some in under.items() if some}


def _excess_columns(parts: _Parts) -> Sequence[str]:
    over = {
        (table, privilege): columns - _needed_columns(table, privilege)
        for (table, privilege), columns in parts.items()
    }
    return [
        f"{privilege} ({', '.join(sorted(columns))}) on {table}"
        for (table, privilege), columns in over.items()
        if columns
    ]


def _missing_columns(has: Mapping[str, frozenset[str]], parts: _Parts) -> Sequence[str]:
    under = {
        table: columns - parts.get((table, "UPDATE"), frozenset())
        for table, columns in COLUMNS.items()
        if "UPDATE" not in has.get(table, frozenset())
    }
    return [
        f"UPDATE ({', '.join(sorted(columns))}) on {table}"
        for table, columns in under.items()
        if columns
    ]


def _needed_columns(table: str, privilege: str) -> frozenset[str]:
    return COLUMNS.get(table, frozenset()) if privilege == "UPDATE" else frozenset()
