"""What is kept of writes that PostgreSQL refused, and for how long."""

from __future__ import annotations

import asyncpg
import pytest

from broker.domain.errors import StoreUnavailable
from broker.store.failures import store_failures
from broker.store.refusals import REMEMBERED_SECONDS, Refusals


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def refused(error: Exception) -> StoreUnavailable:
    """Returns what a pool raises of an error of the driver."""
    with pytest.raises(StoreUnavailable) as raised, store_failures():
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncpg.DiskFullError("could not extend file"), "DISK_FULL"),
        (asyncpg.ReadOnlySQLTransactionError("cannot execute"), "READ_ONLY"),
        (asyncpg.TooManyConnectionsError("sorry"), ""),
        (ConnectionResetError(), ""),
    ],
)
def test_a_refusal_to_write_is_told_apart_from_an_outage(error: Exception, code: str) -> None:
    refusals = Refusals()

    refusals.note(refused(error))

    assert refusals.latest() == code


@pytest.mark.parametrize(("later", "code"), [(0.0, "DISK_FULL"), (0.1, "")])
def test_a_refusal_is_remembered_for_a_while_only(later: float, code: str) -> None:
    clock = Clock()
    refusals = Refusals(clock)

    refusals.note(refused(asyncpg.DiskFullError("could not extend file")))
    clock.seconds += REMEMBERED_SECONDS + later

    assert refusals.latest() == code


def test_before_anything_was_refused_nothing_is_told() -> None:
    assert Refusals(lambda: 0.0).latest() == ""
