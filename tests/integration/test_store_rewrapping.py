"""Rows sealed anew under another key, on a real PostgreSQL, while others write the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncpg
import pytest

from broker.domain.errors import KeyUnavailable, StoreUnavailable
from broker.domain.facts import Fact, KeysRewrapped
from broker.domain.grant import TokenPair, UnreadablePair
from broker.domain.imports import Import
from broker.domain.secret import RefreshToken, Secret
from broker.ports import PutImport, RewrapBatch
from broker.service.rewrapping import Rewrapping, RewrapProgress
from broker.store.rewrapping import BATCH, PostgresKeys
from broker.store.sealing import Keyring
from support.grants import some_grant, some_pair
from support.keysets import add_key, promote_key, remove_key
from support.store_worlds import (
    PostgresStoreWorld,
    change,
    postgres_world,
    put,
    put_some,
    some_authorization,
)


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[PostgresStoreWorld]:
    async with postgres_world(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def path(world: PostgresStoreWorld, tmp_path: Path) -> Path:
    """The keyset that `world` has read."""
    return tmp_path / "keyset.json"


@pytest.fixture
def keys(world: PostgresStoreWorld) -> PostgresKeys:
    return PostgresKeys(world.pool, world.keyring)


@dataclass(slots=True)
class Escrows:
    """Which keys escrows are under: what the test says, a question after the other."""

    answers: list[Mapping[int, int] | None] = field(default_factory=list)

    async def key_use(self) -> Mapping[int, int] | None:
        return self.answers.pop(0) if self.answers else {}


@dataclass(slots=True)
class Told:
    """Remembers what is told."""

    facts: list[Fact] = field(default_factory=list)

    def observe(self, fact: Fact) -> None:
        self.facts.append(fact)


def rotated(path: Path) -> int:
    """Adds a key and promotes it; returns its id."""
    key_id = add_key(path)
    promote_key(path, key_id)
    return key_id


def primary_of(keyring: Keyring) -> int:
    return next(each.key_id for each in keyring.describe() if each.is_primary)


async def fill(world: PostgresStoreWorld, *tenants: str) -> None:
    """Writes something sealed into every table that has any."""
    store, consents = world.grants(), world.consents()
    await put_some(store, *tenants)
    before = await put(store, some_grant())
    await consents.start(some_authorization(before.read_at))
    token = RefreshToken(Secret("fake-imported"))
    record = Import(
        tenant="acme", fingerprint=await consents.fingerprint(token), refresh_token=token
    )
    await change(store, before, some_grant(), beside=PutImport(record=record))


async def rewrap(keys: PostgresKeys) -> RewrapBatch:
    """Goes through all rows once; returns the sum."""
    total: Counter[str] = Counter()
    async with aclosing(keys.rewrap()) as batches:
        async for batch in batches:
            total += Counter(
                {name: getattr(batch, name) for name in RewrapBatch.__dataclass_fields__}
            )
    return RewrapBatch(**{name: total[name] for name in ("rewrapped", "unreadable", "passed_over")})


async def test_all_rows_open_and_nothing_needs_the_older_key(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    older = primary_of(world.keyring)
    await fill(world, "other", "third")
    newer = rotated(path)
    before = await keys.key_use()

    done = await rewrap(keys)
    remove_key(path, older)
    stranger = PostgresStoreWorld(world.pool, world.serving, type(world.keyring)(path))

    assert before == {older: 6}
    assert done == RewrapBatch(rewrapped=6, unreadable=0, passed_over=0)
    assert await keys.key_use() == {newer: 6}
    read = await stranger.grants().read("other")
    assert read.grant.pair == some_pair(7)
    assert await stranger.consents().find(b"state" * 8) is not None
    token = RefreshToken(Secret("fake-imported"))
    imported = await stranger.consents().find_import(await stranger.consents().fingerprint(token))
    assert imported is not None
    assert imported.refresh_token is not None
    assert imported.refresh_token.reveal() == "fake-imported"


async def test_a_verifier_opens_after_it_was_sealed_anew(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    await fill(world)
    rotated(path)

    await rewrap(keys)

    found = await world.consents().find(b"state" * 8)
    assert found is not None
    assert found[0].code_verifier is not None
    assert found[0].code_verifier.reveal() == "fake-verifier"


async def test_rewrapping_changes_no_version_and_tells_nobody(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    (before,) = await put_some(world.grants(), "acme")
    cursor = (await world.grants().changes(-1)).cursor
    rotated(path)

    await rewrap(keys)

    after = await world.grants().read("acme")
    assert (after.version, after.grant) == (before.version, before.grant)
    assert (await world.grants().changes(cursor)).moved == []


async def test_more_rows_than_a_batch_are_all_gone_through(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    await put_some(world.grants(), *(f"tenant-{number:03}" for number in range(BATCH + 1)))
    newer = rotated(path)

    done = await rewrap(keys)

    assert done.rewrapped == BATCH + 2  # with the home
    assert set(await keys.key_use()) == {newer}


async def between(world: PostgresStoreWorld, keys: PostgresKeys, *, write: str) -> RewrapBatch:
    """Rewraps, and has somebody write between the reading of the grants and their writing."""

    class Interrupted:
        def __init__(self) -> None:
            self.is_due = True

        async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
            if self.is_due and query.startswith("WITH known") and "UPDATE grants" in query:
                self.is_due = False
                await world.pool.fetch(write)
            return list(await world.pool.fetch(query, *arguments))

    interrupted = Interrupted()
    done = await rewrap(PostgresKeys(interrupted, world.keyring))  # type: ignore[arg-type] # one method of a pool
    assert not interrupted.is_due
    return done


async def test_a_rotation_that_is_stored_meanwhile_is_not_overwritten(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    older = primary_of(world.keyring)
    await put_some(world.grants(), "acme", "other")
    rotated(path)

    done = await between(
        world,
        keys,
        write="UPDATE grants SET generation = 8, pair_generation = 8, last_attempt = 99, "
        "sealed_access_token = 'newer', sealed_refresh_token = 'newer' WHERE tenant = 'acme'",
    )

    (row,) = await world.pool.fetch("SELECT * FROM grants WHERE tenant = 'acme'")
    assert (row["sealed_access_token"], row["sealed_refresh_token"]) == (b"newer", b"newer")
    assert row["key_id"] == older
    assert done.passed_over == 1


@pytest.mark.parametrize(
    "moved",
    [
        "generation = generation + 1",
        "last_attempt = last_attempt + 1",
        "sealed_refresh_token = 'newer'",
        "sealed_access_token = NULL",
    ],
)
async def test_a_row_that_moved_on_in_any_way_is_passed_over(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path, moved: str
) -> None:
    await put_some(world.grants(), "acme", "other")
    rotated(path)

    done = await between(
        world,
        keys,
        write=f"UPDATE grants SET {moved} WHERE tenant = 'acme'",  # noqa: S608 - constants
    )

    assert (done.rewrapped, done.passed_over) == (2, 1)


async def test_a_row_that_somebody_has_locked_is_passed_over_at_once(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    older = primary_of(world.keyring)
    await put_some(world.grants(), "acme", "other")
    rotated(path)

    async with world.pool.transaction() as connection:
        await connection.execute("SELECT FROM grants WHERE tenant = 'acme' FOR UPDATE")
        done = await rewrap(keys)

    assert (done.rewrapped, done.passed_over) == (2, 1)
    assert (await keys.key_use())[older] == 1


async def test_a_write_that_was_under_way_is_not_refused_for_it(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    (before,) = await put_some(world.grants(), "acme")
    rotated(path)
    await rewrap(keys)

    plain = await change(world.grants(), before, replace(before.grant, last_attempt=99))

    assert plain.grant.pair == some_pair(7)
    assert (await world.grants().read("acme")).grant.pair == some_pair(7)


async def test_what_does_not_open_is_counted_and_stays(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    older = primary_of(world.keyring)
    await put_some(world.grants(), "acme", "other")
    await world.spoil("acme", is_key_missing=False)
    rotated(path)

    done = await rewrap(keys)

    assert done == RewrapBatch(rewrapped=2, unreadable=1, passed_over=0)
    assert (await keys.key_use())[older] == 1
    assert isinstance((await world.grants().read("acme")).grant.pair, UnreadablePair)
    assert isinstance((await world.grants().read("other")).grant.pair, TokenPair)


async def run(
    keys: PostgresKeys, told: Told, escrows: Escrows | None = None
) -> list[tuple[int, int, int]]:
    """Rewraps as a call does; returns total, rewrapped and unreadable, as they were told."""
    rewrapping = Rewrapping(keys, escrows or Escrows(), told)
    progress: AsyncGenerator[RewrapProgress, None] = rewrapping.rewrap_keys(by="ops", reason="why")
    async with aclosing(progress) as words:
        return [(each.total, each.rewrapped, each.unreadable) async for each in words]


async def test_the_beginning_and_the_end_are_told(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    await put_some(world.grants(), "acme", "other")
    await world.spoil("acme", is_key_missing=False)
    newer, told = rotated(path), Told()

    words = await run(keys, told)

    assert words == [(3, 0, 0), (3, 2, 1)]
    assert told.facts == [
        KeysRewrapped(by="ops", reason="why", key_id=newer, total=3, rewrapped=2, unreadable=1)
    ]


async def test_a_row_that_is_rotated_meanwhile_counts_as_done(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    await put_some(world.grants(), "acme")
    rotated(path)
    progress = Rewrapping(keys, Escrows(), Told()).rewrap_keys(by="ops", reason="")

    async with aclosing(progress) as words:
        await anext(words)
        await put(world.grants(), some_grant(generation=8, subject=None, pair=some_pair(8)))
        last = [(each.total, each.rewrapped, each.unreadable) async for each in words][-1]

    assert last == (2, 2, 0)


async def test_what_is_only_counted_stays_as_it_is(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    older = primary_of(world.keyring)
    await fill(world, "other")
    newer = rotated(path)
    before = await keys.key_use()

    counted = await Rewrapping(keys, Escrows(), Told()).count_keys()

    assert (counted.key_id, counted.total) == (newer, before[older])
    assert await keys.key_use() == before
    assert await world.pool.fetch("SELECT FROM grant_events WHERE tenant = '*'") == []


async def test_who_rewraps_and_why_is_on_record(
    world: PostgresStoreWorld, keys: PostgresKeys
) -> None:
    await run(keys, Told())

    rows = await world.pool.fetch("SELECT tenant, actor, call, reason FROM grant_events")
    assert [tuple(row) for row in rows] == [("*", "ops", "OperationsService/RewrapKeys", "why")]


async def test_with_a_missing_key_nothing_is_changed(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    await put_some(world.grants(), "acme", "other")
    await world.spoil("acme", is_key_missing=True)
    rotated(path)
    before = await keys.key_use()

    with pytest.raises(KeyUnavailable) as raised:
        await run(keys, Told())

    assert raised.value.metadata == {"key_id": "1"}
    assert await keys.key_use() == before


async def test_a_caller_that_leaves_ends_it_and_what_is_done_stays(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    await put_some(world.grants(), "acme")
    older, told = primary_of(world.keyring), Told()
    rotated(path)
    progress = Rewrapping(keys, Escrows(), told).rewrap_keys(by="ops", reason="")

    await anext(progress)
    await progress.aclose()

    assert await keys.key_use() == {older: 2}
    assert len(told.facts) == 1


async def test_escrows_under_an_older_key_are_use_and_are_waited_for(
    world: PostgresStoreWorld, keys: PostgresKeys, path: Path
) -> None:
    older = primary_of(world.keyring)
    newer = rotated(path)
    escrows = Escrows([{older: 2, newer: 5}, {older: 1}, {newer: 1}])

    words = await run(keys, Told(), escrows)

    assert words == [(3, 0, 0), (3, 1, 0), (3, 3, 0)]


async def test_a_redis_that_cannot_be_asked_is_not_one_without_escrows(
    keys: PostgresKeys,
) -> None:
    with pytest.raises(StoreUnavailable):
        await run(keys, Told(), Escrows([None]))
