"""What PostgreSQL's failures are called before people. Names of classes, never a driver's text."""

from __future__ import annotations

from typing import Final

import asyncpg

from broker.config import SecretUnreadableError
from broker.domain.errors import StoreUnavailable

TROUBLE: Final = (StoreUnavailable, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""All that can come of a look at the database. A driver's text may quote an address (law 7)."""


def in_words(error: BaseException) -> str:
    """Returns what happened."""
    match error:
        case StoreUnavailable(__cause__=None):
            return error.message
        case StoreUnavailable():
            return f"{error.message} ({type(error.__cause__).__name__})"
        case SecretUnreadableError():
            return str(error)
        case OSError():
            # Those of the network are StoreUnavailable: only this file is left.
            return f"BROKER_DATABASE_CA_FILE: {error.strerror or type(error).__name__}"
        case asyncpg.PostgresError():
            return f"PostgreSQL refused a statement ({type(error).__name__})"
        case _:
            return f"the driver cannot use the address ({type(error).__name__})"
