"""What the stores say of the past that a row is of, of the fakes and of the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.domain.past import Past
from broker.ports import Change, FleetStore, GrantStore
from broker.store.fleet import PostgresFleet
from support.fake_fleet import FakeFleetStore
from support.fake_store import FakeGrantStore
from support.fake_world import FakeWorld
from support.grants import THE_NOW, some_grant
from support.store_worlds import StorePlace, postgres_world, put


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The two that tell a past, on one database."""

    grants: GrantStore
    fleet: FleetStore

    async def live(self) -> str:
        """What the server says of itself."""
        return (await self.fleet.read()).live

    async def note(self, past: Past) -> None:
        """Writes a past into the fleet's row."""
        before = await self.fleet.read()
        noted = replace(before.state, timeline=past.known, timeline_since=past.since)
        assert await self.fleet.apply(before, noted) is not None


@pytest.fixture
async def stores(place: StorePlace, tmp_path: Path) -> AsyncIterator[Stores]:
    if place.url is None:
        world = FakeWorld(now=lambda: THE_NOW)
        yield Stores(grants=FakeGrantStore(world), fleet=FakeFleetStore(world))
        return
    async with postgres_world(place.url, tmp_path, pooler=place.pooler) as real:
        yield Stores(grants=real.grants(), fleet=PostgresFleet(real.serving))


async def test_a_new_database_has_a_past_that_nobody_has_noted(stores: Stores) -> None:
    past = (await stores.grants.read("acme")).past

    assert past == Past(live=await stores.live())
    assert past.live


async def test_a_row_is_read_and_written_with_what_was_noted(stores: Stores) -> None:
    since = THE_NOW - timedelta(days=1)
    noted = Past(live=await stores.live(), known="another", since=since)
    await stores.note(noted)

    written = await put(stores.grants, some_grant())

    assert written.past == noted
    assert (await stores.grants.read("acme")).past == noted
    assert (await stores.grants.read("nobody")).past == noted


@pytest.mark.parametrize("is_new", [True, False])
async def test_what_was_decided_on_another_past_is_not_written(
    stores: Stores, *, is_new: bool
) -> None:
    if not is_new:
        await put(stores.grants, some_grant())
    before = await stores.grants.read("acme")
    elsewhere = replace(before, past=replace(before.past, live="another"))

    assert await stores.grants.apply(elsewhere, Change(after=some_grant(generation=9))) is None

    assert (await stores.grants.read("acme")).grant == before.grant


async def test_nor_is_a_change_of_the_fleets_row(stores: Stores) -> None:
    before = await stores.fleet.read()
    elsewhere = replace(before, live="another")

    assert await stores.fleet.apply(elsewhere, replace(before.state, timeline="lost")) is None

    assert (await stores.fleet.read()).state == before.state
