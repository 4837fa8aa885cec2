"""Whatever lies in Redis, put there by an attacker or another release: nothing of it is believed.

Reading never raises anything but what it says, and what is not ours is never adopted.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.domain.escrow import Escrow
from broker.domain.facts import LeaseOutcome
from broker.lease.announcements import read_moved
from broker.lease.client import RedisClient
from broker.lease.escrow_text import EscrowUnreadableError, read_escrow, write_escrow
from broker.lease.escrows import RedisEscrows
from broker.lease.leases import RedisLeases
from broker.ports import GrantMoved
from broker.store.escrow_sealing import EscrowSealer
from broker.store.sealing import Keyring, generate_keyset
from fuzz.budget import SEED, examples, fuzzed, report
from fuzz.corpora import lines
from support.grants import some_attempt, some_issue
from support.redis_worlds import PREFIX, QUICK, RedisServers, ask, listening, redis_world

pytestmark = pytest.mark.timeout(0)

MOST_SLOTS = 500
"""Each look reads them all."""

OURS = Escrow(tenant="acme", attempt=some_attempt(number=13), issued=some_issue())
WRITTEN = json.loads(write_escrow(OURS))

A_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["acme"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
TOLD = st.dictionaries(st.sampled_from(["tenant", "generation", "version", "x"]), A_VALUE)


@fuzzed(60)
@given(st.binary() | TOLD.map(lambda told: json.dumps(told).encode()))
def test_an_announcement_is_one_or_none(announced: bytes) -> None:
    moved = read_moved(announced)

    if moved is not None:
        assert 0 < len(moved.tenant) <= 200
        assert all(0 <= number < 2**63 for number in (moved.generation, moved.version))
        assert not isinstance(moved.generation, bool)


@fuzzed(60)
@given(st.binary() | st.dictionaries(st.sampled_from(sorted(WRITTEN)), A_VALUE))
def test_the_text_of_an_escrow_is_one_or_unreadable(changed: bytes | dict[str, object]) -> None:
    text = changed if isinstance(changed, bytes) else json.dumps({**WRITTEN, **changed}).encode()

    with suppress(EscrowUnreadableError):
        read = read_escrow(text)
        assert read.attempt.deadline.tzinfo is not None
        assert isinstance(read.attempt.number, int)


@pytest.fixture
def sealer(tmp_path: Path) -> EscrowSealer:
    path = tmp_path / "keyset.json"
    path.write_text(generate_keyset())
    return EscrowSealer(Keyring.from_file(path))


def test_nothing_opens_that_was_not_sealed_for_its_slot(sealer: EscrowSealer) -> None:
    dice, tally = Random(SEED), Counter[str]()
    sealed = sealer.seal(write_escrow(OURS), tenant="acme", number=13)
    for _ in range(examples(300)):
        spoilt = spoilt_of(dice, sealed)
        try:
            sealer.unseal(spoilt, tenant="acme", number=13)
            tally["opened"] += spoilt != sealed
        except (KeyUnavailable, RecordUnreadable) as error:
            tally[error.reason] += 1

    report("escrow slots", tally)
    assert tally["opened"] == 0


def spoilt_of(dice: Random, sealed: bytes) -> bytes:
    match dice.randrange(4):
        case 0:
            return dice.randbytes(dice.randrange(200))
        case 1:
            return sealed[: dice.randrange(len(sealed))]
        case 2:
            return sealed + dice.randbytes(3)
        case _:
            place = dice.randrange(len(sealed))
            return sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]


async def test_of_a_hash_full_of_rubbish_only_ours_is_found(
    redis_url: str, sealer: EscrowSealer
) -> None:
    dice, tally = Random(SEED), Counter[str]()
    sealed = sealer.seal(write_escrow(OURS), tenant="acme", number=13)
    async with (
        RedisClient(lambda: redis_url) as client,
        redis.asyncio.from_url(redis_url) as raw,
    ):
        escrows = RedisEscrows(client, sealer, prefix=PREFIX)
        await escrows.put(OURS)
        for _ in range(min(examples(100), MOST_SLOTS)):
            field = dice.choice([dice.randbytes(dice.randrange(9)), b"b|%d" % dice.randrange(99)])
            await raw.hset(f"{PREFIX}escrows", field, spoilt_of(dice, sealed))
            found = await escrows.find("b")
            tally["found" if found else "none" if found is None else "empty"] += 1

        report("escrows in Valkey", tally)
        assert tally["found"] == 0
        assert await escrows.everything() == [OURS]
        assert await escrows.find("acme") == [OURS]


async def test_a_slot_that_ended_the_sweep_once_is_left_out(
    redis_url: str, sealer: EscrowSealer
) -> None:
    async with (
        RedisClient(lambda: redis_url) as client,
        redis.asyncio.from_url(redis_url) as raw,
    ):
        escrows = RedisEscrows(client, sealer, prefix=PREFIX)
        await escrows.put(OURS)
        for (field,) in lines("escrow_slots"):
            await raw.hset(f"{PREFIX}escrows", bytes.fromhex(field), b"rubbish")

        assert await raw.hlen(f"{PREFIX}escrows") > 1
        assert await escrows.everything() == [OURS]


async def test_rubbish_on_the_channel_is_passed_over(redis_servers: RedisServers) -> None:
    dice = Random(SEED)
    moved = GrantMoved(tenant="acme", generation=7, version=9)
    async with redis_world("valkey", redis_servers) as world:
        _, announcements = await world.replica()
        direct = redis.asyncio.from_url(redis_servers.redis_url)
        async with listening(announcements) as ears, direct as raw:
            for _ in range(min(examples(300), 20_000)):
                rubbish = dice.choice([dice.randbytes(50), b"[" * 9999, b'{"tenant": "a b"}'])
                await raw.publish(f"{PREFIX}moved", rubbish)
            await announcements.announce(moved)

            assert await ears.next() == moved


@pytest.mark.parametrize("value", [b"", b"\xff" * 9, b"0", b"x" * 100_000])
async def test_whatever_holds_a_lease_only_holds_it(redis_url: str, value: bytes) -> None:
    async with (
        RedisClient(lambda: redis_url, times=QUICK) as client,
        redis.asyncio.from_url(redis_url) as raw,
    ):
        leases = RedisLeases(client, prefix=PREFIX)
        await raw.set(f"{PREFIX}lease:acme", value)
        assert await ask(leases, "acme") is LeaseOutcome.HELD

        await raw.delete(f"{PREFIX}lease:acme")
        await raw.rpush(f"{PREFIX}lease:acme", "a list")
        assert await ask(leases, "acme") is not LeaseOutcome.ACQUIRED


async def test_a_lease_that_was_overwritten_is_not_given_back(redis_url: str) -> None:
    async with (
        RedisClient(lambda: redis_url, times=QUICK) as client,
        redis.asyncio.from_url(redis_url) as raw,
    ):
        async with RedisLeases(client, prefix=PREFIX).hold("acme") as outcome:
            assert outcome is LeaseOutcome.ACQUIRED
            await raw.set(f"{PREFIX}lease:acme", b"\xff somebody else's")

        assert await raw.get(f"{PREFIX}lease:acme") == b"\xff somebody else's"
