"""An installation that moves: another broker adopts the database, and the old one is still there.

It should be off. It only stood still, so that nobody saw it, and wakes up: it must share no grant.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from broker.dev.rundir import RunDirectory
from support.cli import run_beside
from support.fleet import Fleet, fleet, until_true
from support.onboarding import connect, execute, get, new_customer
from support.replica import Replica
from support.rpc import failure_of

NOT_SEEN_LATELY = "UPDATE replicas SET seen_at = seen_at - interval '1 minute'"


@pytest.fixture
async def brokers(database_url: str, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    """No broker yet, on a migrated database."""
    async with fleet(database_url, redis_url, run) as brokers:
        yield brokers
        brokers.tell()


@contextmanager
def standing_still(replica: Replica) -> Iterator[None]:
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(replica.pid, signal.SIGCONT)


async def test_an_old_broker_that_wakes_after_an_adoption_shares_no_grant(
    brokers: Fleet,
) -> None:
    old = await brokers.started()
    customer, later = new_customer(brokers.sandbox), new_customer(brokers.sandbox)
    await connect(brokers, old, customer)
    had = await get(old.tokens, customer.tenant)
    settings = brokers.settings() | {"BROKER_HOME": f"{brokers.home}-moved"}

    with standing_still(old):
        await execute(brokers.database_url, NOT_SEEN_LATELY)
        adopted = await run_beside("adopt", "--the-old-one-is-off", environ=settings)
    new = await brokers.started(BROKER_HOME=settings["BROKER_HOME"])

    assert (adopted.status, adopted.stdout.splitlines()[-1][:8]) == (0, "Adopted.")
    await connect(brokers, new, later)
    assert (await get(new.tokens, customer.tenant)).access_token == had.access_token
    refused = await failure_of(get(old.tokens, later.tenant))
    assert refused.error_info.reason == "STORE_UNAVAILABLE"
    assert refused.error_info.metadata["code"] == "HOME_DIFFERS"
    await until_it_says(brokers, old, "HOME_DIFFERS")
    assert (await get(old.tokens, customer.tenant)).access_token == had.access_token


async def until_it_says(brokers: Fleet, replica: Replica, why: str) -> None:
    async def says_so() -> bool:
        return why in (await brokers.asked(replica, "/readyz?verbose")).text

    await until_true(says_so)
