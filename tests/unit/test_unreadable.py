"""Values that do not open: told once, counted until they open or are long forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.domain.errors import RecordUnreadable
from broker.domain.facts import Fact, SealedValueUnreadable
from broker.store.sealing import Keyring, Place, Sealed, generate_keyset
from broker.store.unreadable import FORGOTTEN_AFTER_SECONDS, MOST, UnreadableRecords

THE_PLACE = Place(table="grants", tenant="acme", field="access_token", row="7")


class World:
    """A clock, and what is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[Fact] = []
        self.records = UnreadableRecords(self.told.append, clock=lambda: self.now)

    def meet(self, tenant: str = "acme") -> None:
        self.records.met(table="grants", tenant=tenant, field="access_token")


@pytest.fixture
def world() -> World:
    return World()


def test_one_that_is_met_again_and_again_is_told_once(world: World) -> None:
    for _ in range(5):
        world.meet()

    assert world.told == [
        SealedValueUnreadable(tenant="acme", table="grants", field="access_token")
    ]
    assert len(world.records) == 1


def test_one_that_opens_is_forgotten_and_told_again_when_it_is_met(world: World) -> None:
    world.meet()
    world.records.opened(table="grants", tenant="acme", field="access_token")
    left = len(world.records)
    world.meet()

    assert (left, len(world.told)) == (0, 2)


def test_one_that_opens_says_nothing_of_another(world: World) -> None:
    world.meet("acme")
    world.records.opened(table="grants", tenant="other", field="access_token")

    assert len(world.records) == 1


def test_one_that_nobody_meets_is_forgotten_after_its_time(world: World) -> None:
    world.meet()
    world.now = FORGOTTEN_AFTER_SECONDS
    at_the_end = len(world.records)
    world.now += 0.001

    assert (at_the_end, len(world.records)) == (1, 0)


def test_no_more_are_kept_than_have_room(world: World) -> None:
    for number in range(MOST + 1):
        world.meet(f"tenant-{number}")

    assert (len(world.records), len(world.told)) == (MOST, MOST)


def test_a_keyring_tells_what_does_not_open_and_what_does(tmp_path: Path, world: World) -> None:
    path = tmp_path / "keyset.json"
    path.write_text(generate_keyset())
    keyring = Keyring.from_file(path, unreadable=world.records)
    sealed = keyring.seal(b"secret", THE_PLACE)

    with pytest.raises(RecordUnreadable):
        keyring.unseal(Sealed(ciphertext=b"other", key_id=sealed.key_id), THE_PLACE)
    met = len(world.records)
    keyring.unseal(sealed, THE_PLACE)

    assert (met, len(world.records)) == (1, 0)
