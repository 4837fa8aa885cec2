"""Which errors of the driver mean that PostgreSQL is away, and which are defects of ours."""

from __future__ import annotations

import ssl

import asyncpg
import pytest

from broker.domain.errors import StoreUnavailable
from broker.store.failures import refused_state, store_failures

AWAY: list[Exception] = [
    ConnectionRefusedError(),
    ConnectionResetError(),
    TimeoutError(),
    ssl.SSLError(),
    asyncpg.ConnectionDoesNotExistError(""),
    asyncpg.ConnectionFailureError(""),
    asyncpg.InvalidPasswordError(""),
    asyncpg.TooManyConnectionsError(""),
    asyncpg.DiskFullError(""),
    asyncpg.OutOfMemoryError(""),
    asyncpg.AdminShutdownError(""),
    asyncpg.CrashShutdownError(""),
    asyncpg.CannotConnectNowError(""),
    asyncpg.PostgresIOError(""),
    asyncpg.ReadOnlySQLTransactionError(""),
    asyncpg.IdleInTransactionSessionTimeoutError(""),
    asyncpg.InvalidCatalogNameError(""),
    asyncpg.TargetServerAttributeNotMatched("a standby"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InterfaceError("pool is closing"),
    asyncpg.InterfaceError("cannot call: the underlying connection is closed"),
]

COME_BACK: list[Exception] = [
    asyncpg.QueryCanceledError(""),
    asyncpg.LockNotAvailableError(""),
    asyncpg.DeadlockDetectedError(""),
    asyncpg.SerializationError(""),
]

DEFECTS: list[Exception] = [
    asyncpg.PostgresSyntaxError(""),
    asyncpg.UndefinedTableError(""),
    asyncpg.CheckViolationError(""),
    asyncpg.UniqueViolationError(""),
    asyncpg.InsufficientPrivilegeError(""),
    asyncpg.DataError("invalid input for query argument $1"),
    asyncpg.InterfaceError("another operation is in progress"),
    ValueError(),
]


def name_of(error: Exception) -> str:
    return f"{type(error).__name__}-{error.args[0] if error.args else ''}"


@pytest.mark.parametrize("error", AWAY + COME_BACK, ids=name_of)
def test_a_server_that_is_away_is_unavailable(error: Exception) -> None:
    with pytest.raises(StoreUnavailable) as raised, store_failures():
        raise error

    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", DEFECTS, ids=name_of)
def test_a_defect_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, store_failures():
        raise error

    assert raised.value is error


def test_what_is_said_of_a_failure_holds_nothing_of_the_drivers() -> None:
    with pytest.raises(StoreUnavailable) as raised, store_failures():
        raise asyncpg.CannotConnectNowError("the database system is starting up")

    assert "starting" not in str(raised.value)


@pytest.mark.parametrize("error", AWAY, ids=name_of)
def test_a_server_that_is_away_has_refused_nothing(error: Exception) -> None:
    unavailable = StoreUnavailable("away")
    unavailable.__cause__ = error

    assert refused_state(unavailable) is None


@pytest.mark.parametrize("error", COME_BACK, ids=name_of)
def test_what_took_too_long_was_refused(error: asyncpg.PostgresError) -> None:
    unavailable = StoreUnavailable("slow")
    unavailable.__cause__ = error

    assert refused_state(unavailable) == error.sqlstate


def test_a_violated_check_and_an_unsendable_value_are_refusals() -> None:
    assert refused_state(asyncpg.CheckViolationError("")) == "23514"
    assert refused_state(asyncpg.DataError("invalid input")) == "22000"
    assert refused_state(ValueError()) is None
