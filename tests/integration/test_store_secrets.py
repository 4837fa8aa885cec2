"""No secret lies in clear in PostgreSQL (law 7), and none opens where it was not sealed for."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.domain.errors import KeyUnavailable
from broker.domain.grant import TokenPair, UnreadablePair
from broker.domain.imports import Import
from broker.domain.secret import RefreshToken, Secret
from broker.ports import PutImport
from broker.store.health import key_ids_in_use
from broker.store.home import Home, HomeDiffersError, read_home, settle_home
from broker.store.sealing import generate_keyset
from support.grants import some_grant, some_pair
from support.store_worlds import (
    THE_HOME,
    PostgresStoreWorld,
    change,
    postgres_world,
    put,
    put_some,
    some_authorization,
)

OTHER_HOME = Home(
    name="production-eu", environment="production", token_url="https://x", client_id="client"
)


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[PostgresStoreWorld]:
    async with postgres_world(database_url, tmp_path) as made:
        yield made


async def everything(world: PostgresStoreWorld) -> str:
    """Returns every row of every table, as PostgreSQL shows it."""
    tables = await world.pool.fetch(
        "SELECT quote_ident(relname) FROM pg_class WHERE relkind = 'r' "
        "AND relnamespace = current_schema()::regnamespace"
    )
    rows = [
        row[0]
        for (table,) in tables
        for row in await world.pool.fetch(f"SELECT t::text FROM {table} AS t")  # noqa: S608 - names of our tables
    ]
    return "\n".join(rows)


async def move(world: PostgresStoreWorld, assignment: str) -> None:
    await world.pool.fetch(f"UPDATE grants SET {assignment} WHERE tenant = 'acme'")  # noqa: S608 - constants


async def test_nothing_secret_is_readable_in_any_column(world: PostgresStoreWorld) -> None:
    store, consents = world.grants(), world.consents()
    before = await put(store, some_grant())
    await consents.start(some_authorization(before.read_at))
    token = RefreshToken(Secret("fake-imported"))
    imported = Import(
        tenant="acme", fingerprint=await consents.fingerprint(token), refresh_token=token
    )
    await change(store, before, some_grant(), beside=PutImport(record=imported))

    shown = await everything(world)

    assert "acme" in shown
    for secret in ("fake-", "fake-imported", "fake-verifier", "fake-access", "fake-refresh"):
        assert secret not in shown
        assert secret.encode().hex() not in shown


async def pair_of(world: PostgresStoreWorld) -> TokenPair | UnreadablePair | None:
    return (await world.grants().read("acme")).grant.pair


MOVES = {
    "of another tenant": (
        "(sealed_access_token, sealed_refresh_token) = "
        "(SELECT sealed_access_token, sealed_refresh_token FROM grants WHERE tenant = 'other')"
    ),
    "of the other field": "sealed_refresh_token = sealed_access_token",
    "of another generation": "pair_generation = 6",
    "altered": "sealed_access_token = set_byte(sealed_access_token, 20, "
    "255 - get_byte(sealed_access_token, 20))",
    "nothing": "sealed_access_token = ''",
}


@pytest.mark.parametrize("assignment", MOVES.values(), ids=MOVES)
async def test_a_value_that_is_not_in_its_place_does_not_open(
    world: PostgresStoreWorld, assignment: str
) -> None:
    await put_some(world.grants(), "acme", "other")

    await move(world, assignment)

    pair = await pair_of(world)
    assert isinstance(pair, UnreadablePair)
    assert not pair.is_key_missing


async def test_a_pair_under_a_key_that_is_missing_opens_once_the_key_is_there(
    world: PostgresStoreWorld, tmp_path: Path
) -> None:
    path = tmp_path / "keyset.json"
    first = path.read_text()
    await put_some(world.grants(), "acme")
    two, new = json.loads(first), json.loads(generate_keyset())
    two["key"] += new["key"]
    two["primaryKeyId"] = new["primaryKeyId"]
    for step in (two, new):
        path.write_text(json.dumps(step))
        world.keyring.reload_if_changed()

    pair = await pair_of(world)
    path.write_text(json.dumps(two))

    assert isinstance(pair, UnreadablePair)
    assert pair.is_key_missing
    assert await pair_of(world) == some_pair(7)


async def test_the_keys_in_use_are_those_of_all_rows(
    world: PostgresStoreWorld, tmp_path: Path
) -> None:
    (first,) = world.keyring.describe()
    path = tmp_path / "keyset.json"
    two, new = json.loads(path.read_text()), json.loads(generate_keyset())
    two["key"] += new["key"]
    two["primaryKeyId"] = new["primaryKeyId"]
    path.write_text(json.dumps(two))

    await put_some(world.grants(), "acme")

    assert await key_ids_in_use(world.pool) == {first.key_id, new["primaryKeyId"]}


async def test_keys_of_grants_are_named_however_many_there_are(
    world: PostgresStoreWorld,
) -> None:
    await put_some(world.grants(), "acme", "blue", "cargo", "none")
    async with world.pool.transaction() as connection:
        for tenant, key_id in {"acme": 1, "blue": 2, "cargo": 2**40}.items():
            await connection.execute(
                "UPDATE grants SET key_id = $2 WHERE tenant = $1", tenant, key_id
            )

    (own,) = world.keyring.describe()
    assert await key_ids_in_use(world.pool) == {own.key_id, 1, 2, 2**40}


async def test_a_verifier_that_does_not_open_is_none(
    world: PostgresStoreWorld, tmp_path: Path
) -> None:
    consents = world.consents()
    now = (await world.grants().read("acme")).read_at
    await consents.start(some_authorization(now))

    await world.pool.fetch("UPDATE authorizations SET key_id = 1")

    found = await consents.find(b"state" * 8)
    assert found is not None
    assert found[0] == replace(some_authorization(now), code_verifier=None)


async def test_an_imported_token_that_does_not_open_is_none(world: PostgresStoreWorld) -> None:
    store = world.grants()
    before = await put(store, some_grant())
    record = Import(tenant="acme", fingerprint=b"f", refresh_token=RefreshToken(Secret("fake")))
    await change(store, before, some_grant(), beside=PutImport(record=record))

    await world.pool.fetch("UPDATE imports SET fingerprint = 'g'")

    found = await world.consents().find_import(b"g")
    assert found is not None
    assert found.refresh_token is None


async def test_the_home_is_settled_once(world: PostgresStoreWorld) -> None:
    token = RefreshToken(Secret("fake-refresh"))
    before = await world.consents().fingerprint(token)

    await settle_home(world.pool, world.keyring, THE_HOME)

    assert await world.consents().fingerprint(token) == before
    assert await read_home(world.pool) == THE_HOME


async def test_another_home_is_refused_and_both_are_named(world: PostgresStoreWorld) -> None:
    with pytest.raises(HomeDiffersError) as raised:
        await settle_home(world.pool, world.keyring, OTHER_HOME)

    assert str(raised.value) == (
        "the database is another broker's home: name: 'default', here 'production-eu'; "
        "environment: 'custom', here 'production'; "
        "token_url: 'http://127.0.0.1:1/token', here 'https://x'"
    )


async def test_no_fingerprint_is_made_without_the_homes_key(
    world: PostgresStoreWorld, tmp_path: Path
) -> None:
    path = tmp_path / secrets.token_hex(4)
    path.write_text(generate_keyset())
    stranger = PostgresStoreWorld(world.pool, world.serving, type(world.keyring)(path))

    with pytest.raises(KeyUnavailable):
        await stranger.consents().fingerprint(RefreshToken(Secret("fake")))
