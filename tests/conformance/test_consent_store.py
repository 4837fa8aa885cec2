"""What `ports.ConsentStore` promises, of the fake and of the real one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from broker.domain.authorization import Outcome
from broker.domain.errors import KeyUnavailable
from broker.domain.secret import RefreshToken, Secret
from broker.ports import ConsentStore
from support.store_worlds import StoreWorld, some_authorization

THE_STATE = b"state" * 8

DENIED = Outcome(reason="CONSENT_DENIED", metadata={"error": "access_denied"})


@pytest.fixture
def store(world: StoreWorld) -> ConsentStore:
    return world.consents()


@pytest.fixture
async def now(world: StoreWorld) -> datetime:
    return (await world.grants().read("nobody")).read_at


async def test_an_authorization_is_found_as_it_was_started(
    store: ConsentStore, now: datetime
) -> None:
    started = some_authorization(now)
    await store.start(started)

    found = await store.find(THE_STATE)

    assert found is not None
    assert found[0] == started
    assert found[1] > now


async def test_an_unknown_state_is_not_found(store: ConsentStore) -> None:
    assert await store.find(b"unknown") is None


async def test_an_expired_authorization_is_found(store: ConsentStore, now: datetime) -> None:
    expired = replace(some_authorization(now), expires_at=now - timedelta(hours=23))
    await store.start(expired)
    await store.start(some_authorization(now, b"other"))

    found = await store.find(THE_STATE)

    assert found is not None
    assert found[0] == expired


async def test_a_new_start_deletes_what_has_been_over_for_long(
    store: ConsentStore, now: datetime
) -> None:
    await store.start(replace(some_authorization(now), expires_at=now - timedelta(hours=25)))
    await store.start(some_authorization(now, b"other"))

    assert await store.find(THE_STATE) is None
    assert await store.find(b"other" * 8) is not None


async def test_a_state_is_spent_without_a_claim(store: ConsentStore, now: datetime) -> None:
    await store.start(some_authorization(now))

    await store.spend(THE_STATE, DENIED)

    found = await store.find(THE_STATE)
    assert found is not None
    assert found[0].spent_at is not None
    assert found[0].outcome == DENIED
    assert found[0].code_verifier is None


async def test_a_spent_state_keeps_its_first_outcome(store: ConsentStore, now: datetime) -> None:
    await store.start(some_authorization(now))
    await store.spend(THE_STATE, DENIED)

    await store.spend(THE_STATE, Outcome(reason="", metadata={}))
    await store.spend(b"unknown", DENIED)

    found = await store.find(THE_STATE)
    assert found is not None
    assert found[0].outcome == DENIED


async def test_nothing_is_started_where_nothing_can_be_sealed(
    world: StoreWorld, now: datetime
) -> None:
    store = world.consents()
    world.break_sealing()

    with pytest.raises(KeyUnavailable):
        await store.start(some_authorization(now))

    assert await store.find(THE_STATE) is None


async def test_an_unknown_import_is_not_found(store: ConsentStore) -> None:
    assert await store.find_import(b"unknown") is None


async def test_a_token_has_the_same_fingerprint_everywhere(world: StoreWorld) -> None:
    one, same, other = (RefreshToken(Secret(text)) for text in ("one", "one", "other"))

    first = await world.consents().fingerprint(one)

    assert await world.consents().fingerprint(same) == first
    assert await world.consents().fingerprint(other) != first
