"""Which schema this code is for, and whether the one in the database suits it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import asyncpg

from broker.store.connecting import Connection, DatabaseUnfit
from broker.store.pool import Pool

SCHEMA_VERSION: Final = 6
"""The number of the last file in `migrations/`. Code works with this schema and with newer ones
that name it as their reader."""

_READ: Final = (
    "SELECT max(version) AS version, max(minimum_reader) AS reader FROM schema_migrations"
)

PRIVILEGES_MISSING: Final = "PRIVILEGES_MISSING"
"""What health calls a role that may not do what the service does."""


class SchemaFitness(StrEnum):
    """Whether we may work with a schema."""

    FIT = "FIT"
    TOO_OLD = "SCHEMA_TOO_OLD"
    """`migrate` has not run yet."""

    TOO_NEW = "SCHEMA_TOO_NEW"
    """It says that our code can no longer read it."""


def judge_schema(version: int, minimum_reader: int) -> SchemaFitness:
    """Decides from the newest migration and the oldest reader that any of them names."""
    if version < SCHEMA_VERSION:
        return SchemaFitness.TOO_OLD
    return SchemaFitness.TOO_NEW if minimum_reader > SCHEMA_VERSION else SchemaFitness.FIT


async def read_schema(pool: Pool | Connection) -> tuple[int, SchemaFitness]:
    """Returns the version of the database's schema, 0 where there is none, and what it is to us.

    Raises:
        StoreUnavailable: try again. DatabaseUnfit: our role may not look.
    """
    try:
        (row,) = await pool.fetch(_READ)
    except asyncpg.UndefinedTableError:
        return 0, SchemaFitness.TOO_OLD
    except asyncpg.InsufficientPrivilegeError:
        what = "the role may not use the schema: token-broker migrate --service-role NAME"
        raise DatabaseUnfit(what, code=PRIVILEGES_MISSING) from None
    version, reader = row["version"] or 0, row["reader"] or 0
    return version, judge_schema(version, reader)
