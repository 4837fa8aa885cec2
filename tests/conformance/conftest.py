"""The databases that the suites of the stores run on, each made where a test needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.store_worlds import StorePlace, StoreWorld, store_world


@pytest.fixture(params=["fake", "postgres", "pgbouncer"])
def place(request: pytest.FixtureRequest) -> StorePlace:
    """Which database a test is on. The fake needs none, and none is made for it."""
    if request.param == "fake":
        return StorePlace()
    pooler = request.getfixturevalue("pooler") if request.param == "pgbouncer" else None
    return StorePlace(url=request.getfixturevalue("database_url"), pooler=pooler)


@pytest.fixture
async def world(place: StorePlace, tmp_path: Path) -> AsyncIterator[StoreWorld]:
    """A database, real or fake."""
    async with store_world(place, tmp_path) as made:
        yield made
