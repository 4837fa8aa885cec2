"""What `ports.Renewals` promises, of the fake and of the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg

from broker.domain.grant import (
    Attempt,
    AttemptPhase,
    Doubt,
    FailureKind,
    FailureRecord,
    Grant,
    GrantState,
)
from broker.domain.renewal import Planned
from support.grants import some_attempt, some_grant, some_pair, some_reauth
from support.store_worlds import StoreWorld, postgres_world, put

A_MINUTE = timedelta(minutes=1)
"""Longer than the suite needs from one statement to the next."""

KEEPALIVE = timedelta(days=20)


async def now_of(world: StoreWorld) -> datetime:
    return (await world.grants().read("nobody")).read_at


def due(tenant: str, now: datetime, *, ago: timedelta = A_MINUTE) -> Grant:
    """Returns a grant whose renewal time has come, to be noted as used."""
    return replace(
        some_grant(tenant=tenant, subject=None),
        renew_at=now - ago,
        refreshed_at=now - timedelta(hours=1),
    )


async def put_used(world: StoreWorld, *grants: Grant) -> None:
    for grant in grants:
        await put(world.grants(), grant)
    await world.grants().note_used([grant.tenant for grant in grants])


async def taken(
    world: StoreWorld, which: Planned = Planned.IN_USE, *, limit: int = 10
) -> Sequence[str]:
    renewals = world.renewals(keepalive=KEEPALIVE)
    return [each.tenant for each in await renewals.take(which, limit=limit)]


async def test_what_is_in_use_and_due_is_taken(world: StoreWorld) -> None:
    now = await now_of(world)
    await put_used(world, due("due", now), due("later", now, ago=-A_MINUTE))

    assert await taken(world) == ["due"]


async def test_what_nobody_asked_for_since_its_rotation_is_left_to_expire(
    world: StoreWorld,
) -> None:
    now = await now_of(world)
    await put_used(world, due("rotated", now))
    rotated = replace(due("rotated", now), refreshed_at=now + A_MINUTE)
    await put(world.grants(), rotated)
    await put(world.grants(), due("never-used", now))

    assert await taken(world) == []


async def test_what_somebody_has_taken_is_not_given_to_another(world: StoreWorld) -> None:
    await put_used(world, due("acme", await now_of(world)))

    assert await taken(world) == ["acme"]
    assert await taken(world) == []


async def test_the_longest_overdue_comes_first_and_says_how_long(world: StoreWorld) -> None:
    now = await now_of(world)
    # The longest overdue is neither the first nor the last by name.
    await put_used(world, due("a", now), due("latest", now, ago=2 * A_MINUTE), due("z", now))

    renewals = world.renewals(keepalive=KEEPALIVE)
    (first,) = await renewals.take(Planned.IN_USE, limit=1)

    assert first.tenant == "latest"
    assert 2 * A_MINUTE <= first.delay < 3 * A_MINUTE


BUSY: dict[str, Attempt] = {
    "armed": some_attempt(phase=AttemptPhase.ARMED),
    "claimed": some_attempt(phase=AttemptPhase.CLAIMED),
}


async def test_what_cannot_be_renewed_now_is_not_taken(world: StoreWorld) -> None:
    now = await now_of(world)
    unknown = some_attempt(phase=AttemptPhase.UNKNOWN)
    later = FailureRecord(
        kind=FailureKind.PROVIDER_UNAVAILABLE, code="", count=1, next_try_at=now + A_MINUTE
    )
    await put_used(
        world,
        *(replace(due(name, now), attempt=attempt) for name, attempt in BUSY.items()),
        replace(due("unknown", now), attempt=replace(unknown, deadline=now + A_MINUTE)),
        replace(due("pausing", now), failures=later),
        replace(due("doubt", now), doubt=Doubt.ABANDONED),
        replace(due("no-token", now), pair=replace(some_pair(7), refresh_token=None)),
        replace(due("held", now), state=GrantState.HELD, reauth=some_reauth()),
        replace(due("reauth", now), state=GrantState.REAUTH_REQUIRED, reauth=some_reauth()),
    )

    assert await taken(world) == []


async def test_what_was_in_the_way_and_is_over_is_taken(world: StoreWorld) -> None:
    now = await now_of(world)
    unknown = some_attempt(phase=AttemptPhase.UNKNOWN)
    earlier = FailureRecord(
        kind=FailureKind.PROVIDER_UNAVAILABLE, code="", count=1, next_try_at=now - A_MINUTE
    )
    await put_used(
        world,
        replace(due("a-unknown", now), attempt=replace(unknown, deadline=now - A_MINUTE)),
        replace(due("b-pausing", now), failures=earlier),
        replace(due("c-doubt", now), doubt=Doubt.DISCLAIMED),
    )

    assert sorted(await taken(world)) == ["a-unknown", "b-pausing", "c-doubt"]


async def test_an_idle_grant_is_taken_when_its_token_is_old(world: StoreWorld) -> None:
    now = await now_of(world)
    await put(world.grants(), replace(due("old", now), refreshed_at=now - KEEPALIVE - A_MINUTE))
    await put(world.grants(), replace(due("young", now), refreshed_at=now - KEEPALIVE + A_MINUTE))

    assert await taken(world, Planned.IN_USE) == []
    assert await taken(world, Planned.IDLE) == ["old"]
    assert await taken(world, Planned.IDLE) == []


async def test_taking_changes_nothing_that_others_see(world: StoreWorld) -> None:
    await put_used(world, due("acme", await now_of(world)))
    before, cursor = await world.grants().read("acme"), (await world.grants().changes(-1)).cursor

    await taken(world)

    after = await world.grants().read("acme")
    assert (after.grant, after.version) == (before.grant, before.version)
    assert (await world.grants().changes(cursor)).moved == []


async def test_no_more_are_taken_than_were_asked_for(world: StoreWorld) -> None:
    now = await now_of(world)
    await put_used(world, *(due(f"t-{number}", now) for number in range(5)))

    assert len(await taken(world, limit=3)) == 3
    assert len(await taken(world, limit=3)) == 2


async def test_rows_that_somebody_has_locked_are_passed_over(
    database_url: str, tmp_path: Path
) -> None:
    async with postgres_world(database_url, tmp_path) as world:
        now = await now_of(world)
        await put_used(world, due("locked", now, ago=2 * A_MINUTE), due("free", now))
        owner = await asyncpg.connect(database_url)
        try:
            async with owner.transaction():
                await owner.execute("SELECT FROM grants WHERE tenant = 'locked' FOR UPDATE")

                assert await taken(world) == ["free"]
        finally:
            await owner.close()
