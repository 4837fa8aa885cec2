"""The one place that knows which errors of the driver mean that PostgreSQL is not there for us.

Those become `StoreUnavailable`; whatever else the driver raises is a defect of ours (a syntax
error, a violated constraint) and goes up as it is. An error here says nothing about whether a
commit happened: where its acknowledgement was lost, only reading again tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from broker.domain.errors import StoreUnavailable

# SQLSTATEs and classes of them (PostgreSQL's manual, appendix A) in which no statement succeeds.
_AWAY: Final = (
    "08",  # connection
    "25006",  # read only: a standby, or a full disk on a managed server
    "25P03",  # idle in transaction for too long: our loop was held up
    "25P04",  # transaction_timeout
    "28",  # who we are: a password that is being changed
    "3D",  # the database is not there: restored just now
    "53",  # resources: too many connections, disk, memory
    "57P",  # an administrator ends sessions, the server starts or stops
    "58",  # the server's operating system
)

_IN_THE_WAY: Final = frozenset(
    {
        "40001",  # serialization
        "40P01",  # deadlock
        "55P03",  # lock_timeout
        "57014",  # statement_timeout
    }
)
"""States of a statement that others were in the way of: the server is well."""

_DATA_EXCEPTION: Final = "22000"

# asyncpg has one class for misuse and for a connection that is gone: only its words tell.
_GONE: Final = ("connection is closed", "pool is clos", "underlying connection is closed")


def is_unavailable(error: Exception) -> bool:
    """Whether PostgreSQL could not be reached, did not answer in time, or is not for writing."""
    match error:
        case asyncpg.PostgresError(sqlstate=str(sqlstate)):
            return sqlstate in _IN_THE_WAY or sqlstate.startswith(_AWAY)
        case asyncpg.InterfaceError():
            return any(words in str(error) for words in _GONE)
        case _:
            # TLS and DNS failures, resets and refusals are OSErrors; a broken handshake or a
            # server of another role is an InternalClientError.
            return isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError)


def refused_state(error: Exception) -> str | None:
    """Returns the SQLSTATE with which this one statement was refused; None: it was something else.

    Nothing of a refused statement was committed. A lock or a statement that took too long counts:
    with less to write it may go through.
    """
    cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
    match cause:
        case asyncpg.PostgresError(sqlstate=str(sqlstate)):
            return None if sqlstate.startswith(_AWAY) else sqlstate
        case asyncpg.DataError():  # refused by the driver: text that cannot be encoded
            return _DATA_EXCEPTION
        case _:
            return None


@contextmanager
def store_failures() -> Iterator[None]:
    """Turns errors of the driver into `StoreUnavailable`. Its message holds no driver text."""
    try:
        yield
    except StoreUnavailable:
        raise
    except Exception as error:
        if not is_unavailable(error):
            raise
        raise StoreUnavailable("PostgreSQL cannot be reached or does not answer in time") from error
