"""Counts of the whole fleet, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from broker.domain.fleet_report import GrantCounts
from broker.domain.grant import AttemptKind, AttemptPhase, Doubt, GrantState
from broker.domain.history import AttemptOutcome, AttemptRecord
from broker.ports import Change
from broker.store.fleet import ALIVE_FOR
from broker.store.tally import LATEST, OVERDUE_AFTER, PostgresTally
from support.grants import some_attempt, some_grant, some_grant_under, some_reauth
from support.store_worlds import PostgresStoreWorld, postgres_world, put

KEEPALIVE = timedelta(days=20)
LATE = OVERDUE_AFTER + timedelta(minutes=1)
A_MOMENT = timedelta(seconds=10)


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[PostgresStoreWorld]:
    async with postgres_world(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def tally(world: PostgresStoreWorld) -> PostgresTally:
    return PostgresTally(world.pool, keepalive=KEEPALIVE)


@pytest.fixture
async def now(world: PostgresStoreWorld) -> datetime:
    return (await world.fleet().read()).read_at


async def put_due(
    world: PostgresStoreWorld,
    tenant: str,
    *,
    renew_at: datetime,
    refreshed_at: datetime,
    is_used: bool,
    state: GrantState = GrantState.ACTIVE,
) -> None:
    grant = some_grant(tenant=tenant, subject=None, state=state, reauth=some_reauth())
    await put(world.grants(), replace(grant, renew_at=renew_at, refreshed_at=refreshed_at))
    if is_used:
        await world.grants().note_used([tenant])


async def add_line(
    world: PostgresStoreWorld,
    tenant: str,
    outcome: AttemptOutcome,
    *,
    ended_at: datetime,
    kind: AttemptKind = AttemptKind.REFRESH,
) -> None:
    before = await world.grants().read(tenant)
    line = AttemptRecord(
        tenant=tenant, attempt=some_attempt(kind=kind), outcome=outcome, ended_at=ended_at
    )
    after = some_grant(tenant=tenant, subject=None)
    assert await world.grants().apply(before, Change(after=after, ended=line)) is not None


async def test_an_empty_fleet_is_counted_too(tally: PostgresTally) -> None:
    told = await tally.tally()

    assert told.counts == GrantCounts(active=0, held=0, reauth_required=0, revoked=0, in_doubt=0)
    assert (told.overdue.count, told.overdue.longest, told.replicas) == (0, None, ())


async def test_grants_are_counted_by_state(world: PostgresStoreWorld, tally: PostgresTally) -> None:
    for number, state in enumerate(GrantState):
        for each in range(number + 1):
            grant = some_grant(tenant=f"{state}{each}", subject=None, state=state)
            dead = replace(grant, reauth=some_reauth(), revoked_at=grant.renew_at)
            await put(world.grants(), dead)

    counts = (await tally.tally()).counts

    assert (counts.active, counts.held, counts.reauth_required, counts.revoked) == (2, 3, 4, 5)


async def test_doubt_and_silent_attempts_count_as_in_doubt(
    world: PostgresStoreWorld, tally: PostgresTally, now: datetime
) -> None:
    armed = some_attempt(phase=AttemptPhase.ARMED, deadline=now + timedelta(hours=1))
    silent = replace(armed, deadline=now - A_MOMENT)
    for grant in (
        some_grant(tenant="sure"),
        some_grant(tenant="doubted", doubt=Doubt.DISCLAIMED),
        some_grant_under(armed, tenant="under-way"),
        some_grant_under(silent, tenant="silent"),
    ):
        await put(world.grants(), replace(grant, subject=None))

    assert (await tally.tally()).counts.in_doubt == 2


async def test_a_grant_in_use_is_overdue_after_its_renewal(
    world: PostgresStoreWorld, tally: PostgresTally, now: datetime
) -> None:
    before = now - timedelta(hours=1)
    await put_due(world, "late", renew_at=now - LATE, refreshed_at=before, is_used=True)
    await put_due(world, "due", renew_at=now, refreshed_at=before, is_used=True)
    await put_due(world, "unused", renew_at=now - LATE, refreshed_at=before, is_used=False)

    overdue = (await tally.tally()).overdue

    assert overdue.count == 1
    assert overdue.longest is not None
    assert LATE <= overdue.longest < LATE + timedelta(minutes=1)


async def test_an_unused_grant_is_overdue_after_its_keepalive(
    world: PostgresStoreWorld, tally: PostgresTally, now: datetime
) -> None:
    for tenant, age in (("dying", KEEPALIVE + LATE), ("resting", KEEPALIVE - LATE)):
        await put_due(world, tenant, renew_at=now, refreshed_at=now - age, is_used=False)

    assert (await tally.tally()).overdue.count == 1


async def test_what_serves_nothing_is_never_overdue(
    world: PostgresStoreWorld, tally: PostgresTally, now: datetime
) -> None:
    old, dead = now - timedelta(days=90), GrantState.REAUTH_REQUIRED
    await put_due(world, "dead", renew_at=old, refreshed_at=old, is_used=True, state=dead)

    assert (await tally.tally()).overdue.count == 0


async def test_refusals_are_counted_once_a_grant_within_the_window(
    world: PostgresStoreWorld, tally: PostgresTally, now: datetime
) -> None:
    refused, rotated = AttemptOutcome.REFUSED, AttemptOutcome.ROTATED
    for tenant in ("a", "a", "b"):
        await add_line(world, tenant, refused, ended_at=now - A_MOMENT)
    await add_line(world, "c", refused, ended_at=now - timedelta(minutes=6))
    await add_line(world, "d", rotated, ended_at=now - A_MOMENT)
    await add_line(world, "e", refused, ended_at=now - A_MOMENT, kind=AttemptKind.IMPORT)

    assert (await tally.tally()).recent_refusals == 2


async def test_replicas_are_told_that_gave_a_sign_of_life(
    world: PostgresStoreWorld, tally: PostgresTally
) -> None:
    for name in ("two", "one", "gone"):
        await world.fleet().beat(name, "1.2.3")
    await world.silence("gone", since=ALIVE_FOR)

    replicas = (await tally.tally()).replicas

    assert [(each.name, each.build) for each in replicas] == [("one", "1.2.3"), ("two", "1.2.3")]


async def test_attempts_of_the_hour_are_counted_by_minute(
    world: PostgresStoreWorld, tally: PostgresTally, now: datetime
) -> None:
    rotated = AttemptOutcome.ROTATED
    for minutes in (0.2, 0.2, 30.4, 59.2, 61):
        await add_line(world, "acme", rotated, ended_at=now - timedelta(minutes=minutes))
    await add_line(world, "acme", AttemptOutcome.REFUSED, ended_at=now - timedelta(minutes=30.4))

    found = [(each.minutes_ago, each.outcome, each.count) for each in (await tally.hour()).minutes]

    assert found == [
        (0, "ROTATED", 2),
        (30, "REFUSED", 1),
        (30, "ROTATED", 1),
        (59, "ROTATED", 1),
    ]


async def test_the_latest_attempts_come_first_and_are_few(
    world: PostgresStoreWorld, tally: PostgresTally, now: datetime
) -> None:
    for seconds in range(LATEST + 2):
        ended_at = now - timedelta(seconds=seconds)
        await add_line(world, "acme", AttemptOutcome.UNKNOWN, ended_at=ended_at)

    latest = (await tally.hour()).latest

    assert [now - each.ended_at for each in latest] == [
        timedelta(seconds=seconds) for seconds in range(LATEST)
    ]
    assert {(each.kind, each.outcome, each.replica) for each in latest} == {
        ("REFRESH", "UNKNOWN", some_attempt().replica)
    }
