"""Brokers are replaced one by one: callers that do as deploy/README.md says lose no call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.dev.rundir import RunDirectory
from support.fleet import Fleet, fleet
from support.onboarding import grant_of
from support.rolling import under_load

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def brokers(database_url: str, redis_url: str, run: RunDirectory) -> AsyncIterator[Fleet]:
    async with fleet(database_url, redis_url, run) as made:
        yield made
        made.tell()


async def test_brokers_are_replaced_and_no_call_fails(brokers: Fleet) -> None:
    async with under_load(brokers, count=2) as rolling:
        news = await rolling.replace_all()
        shares = await rolling.shares(news)
        generations = {
            each.tenant: (await grant_of(news[0], each.tenant)).generation
            for each in rolling.customers
        }

    callers, counts = rolling.callers, brokers.sandbox.record.counts()
    assert callers.failed + rolling.web.failed == []
    assert set(rolling.application.seen) == {200}
    assert counts.presentations == rolling.rotated == 2 * len(rolling.customers)
    assert counts.presentations_of_superseded == 0
    assert min(shares) > 0.2
    assert callers.streams > 1
    assert rolling.web.consents > 1
    assert callers.newest == generations
