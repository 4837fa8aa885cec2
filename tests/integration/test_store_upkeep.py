"""What the hourly upkeep forgets, and what it must not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from broker.domain.imports import (
    OUTCOME_UNKNOWN,
    SUPERSEDED,
    Import,
    ImportOutcome,
    refused,
    rotated_unstored,
    stored,
)
from broker.domain.secret import RefreshToken, Secret
from broker.ports import PutImport
from broker.store.upkeep import AUTHORIZATION_KEPT, IMPORT_KEPT, TOKEN_KEPT, maintain
from support.grants import some_grant
from support.store_worlds import (
    PostgresStoreWorld,
    change,
    postgres_world,
    put,
    some_authorization,
)

AN_HOUR = timedelta(hours=1)
A_FORTNIGHT = timedelta(days=14)
A_TOKEN = RefreshToken(Secret("fake-refresh"))

PENDING = Import(tenant="acme", fingerprint=b"brought", refresh_token=A_TOKEN)
UNANSWERED = replace(PENDING, presentations=2)
NEWER_KEPT = rotated_unstored(PENDING, RefreshToken(Secret("fake-newer")))


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[PostgresStoreWorld]:
    async with postgres_world(database_url, tmp_path) as made:
        yield made


async def left_of(
    world: PostgresStoreWorld, record: Import, *, age: timedelta, imported_with: bytes = b"other"
) -> Import | None:
    """Returns what the upkeep leaves of an import of that age."""
    store = world.grants()
    grant = some_grant(import_fingerprint=imported_with)
    await change(store, await put(store, grant), grant, beside=PutImport(record=record))
    await world.pool.fetch("UPDATE imports SET created_at = clock_timestamp() - $1::interval", age)
    await maintain(world.pool, attempt_retention=A_FORTNIGHT)
    return await world.consents().find_import(record.fingerprint)


@pytest.mark.parametrize("record", [stored(PENDING), refused(PENDING, "invalid_grant")])
async def test_what_became_of_a_token_is_known_for_a_year(
    world: PostgresStoreWorld, record: Import
) -> None:
    assert await left_of(world, record, age=IMPORT_KEPT - AN_HOUR) is not None
    assert await left_of(world, record, age=IMPORT_KEPT + AN_HOUR) is None


async def test_the_token_that_made_the_present_grant_is_known_for_ever(
    world: PostgresStoreWorld,
) -> None:
    record = await left_of(
        world, stored(PENDING), age=10 * IMPORT_KEPT, imported_with=PENDING.fingerprint
    )

    assert record is not None


@pytest.mark.parametrize(
    ("record", "error"), [(UNANSWERED, OUTCOME_UNKNOWN), (NEWER_KEPT, SUPERSEDED)]
)
async def test_a_token_that_nobody_came_for_is_destroyed_and_not_presented_again(
    world: PostgresStoreWorld, record: Import, error: str
) -> None:
    young = await left_of(world, record, age=TOKEN_KEPT - AN_HOUR)
    assert young is not None
    assert young.refresh_token == record.refresh_token

    old = await left_of(world, record, age=TOKEN_KEPT + AN_HOUR)

    assert old is not None
    assert (old.outcome, old.error, old.refresh_token) == (ImportOutcome.REFUSED, error, None)


async def test_a_history_in_use_keeps_no_token_from_being_destroyed(
    world: PostgresStoreWorld,
) -> None:
    await world.pool.fetch("ALTER FUNCTION drop_attempts_before(date) RENAME TO out_of_order")

    with pytest.raises(asyncpg.UndefinedFunctionError):
        await left_of(world, UNANSWERED, age=TOKEN_KEPT + AN_HOUR)

    left = await world.consents().find_import(UNANSWERED.fingerprint)
    assert left is not None
    assert left.refresh_token is None


async def test_a_token_that_was_never_presented_is_forgotten(world: PostgresStoreWorld) -> None:
    assert await left_of(world, PENDING, age=TOKEN_KEPT - AN_HOUR) is not None
    assert await left_of(world, PENDING, age=TOKEN_KEPT + AN_HOUR) is None


async def test_an_authorization_is_forgotten_a_day_after_its_end(
    world: PostgresStoreWorld,
) -> None:
    over_at = datetime.now(UTC) - AUTHORIZATION_KEPT
    # The last one is not met by a start after it, which forgets some as well.
    ends = {b"kept": over_at + AN_HOUR, b"past": over_at - AN_HOUR}
    for state, expires_at in ends.items():
        authorization = some_authorization(over_at, state)
        await world.consents().start(replace(authorization, expires_at=expires_at))

    await maintain(world.pool, attempt_retention=A_FORTNIGHT)

    assert await world.consents().find(b"past" * 8) is None
    assert await world.consents().find(b"kept" * 8) is not None


async def test_events_are_kept_whatever_their_age(world: PostgresStoreWorld) -> None:
    await world.pool.fetch(
        "INSERT INTO grant_events (at, tenant, actor, call, reason, state_before, state_after, "
        "generation) VALUES ('2001-01-01', 'acme', 'a', 'c', 'r', 'ACTIVE', 'REVOKED', 1)"
    )

    await maintain(world.pool, attempt_retention=A_FORTNIGHT)

    assert (await world.history())[1] == ["c"]
