"""What `ports.Escrows` promises, of the fake and of the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
import redis.asyncio

from broker.domain.escrow import Escrow
from broker.domain.grant import AttemptKind, ScopesSource
from broker.lease.address import prefix_of
from broker.lease.client import RedisClient
from broker.lease.escrows import RedisEscrows
from broker.ports import Escrows
from broker.store.escrow_sealing import EscrowSealer
from broker.store.sealing import Keyring, generate_keyset
from support.fake_escrows import FakeEscrows
from support.fake_lease import FakeRedis
from support.grants import some_attempt, some_issue
from support.redis_worlds import PREFIX, QUICK, RedisServers

# An outage that no test waits out.
HASTY = replace(QUICK, connect=timedelta(milliseconds=200), answer=timedelta(milliseconds=200))


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Escrows, and how to break what they lie in."""

    replica: Callable[[], Escrows]
    cut_off: Callable[[], None]
    lose_answers: Callable[[], None]


def fake_world() -> World:
    shared = FakeRedis()
    return World(
        replica=lambda: FakeEscrows(shared),
        cut_off=lambda: setattr(shared, "is_reachable", False),
        lose_answers=lambda: setattr(shared, "is_answering", False),
    )


def keyring_in(directory: Path) -> Keyring:
    path = directory / "keyset.json"
    path.write_text(generate_keyset())
    return Keyring.from_file(path)


@asynccontextmanager
async def valkey_world(kind: str, servers: RedisServers, directory: Path) -> AsyncIterator[World]:
    sealer = EscrowSealer(keyring_in(directory))
    async with servers.near(kind) as (between, url, _), AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(RedisClient(lambda: url, times=HASTY)) for _ in range(2)
        ]

        def cut_off() -> None:
            between.refuse()
            between.cut()

        yield World(
            replica=lambda: RedisEscrows(clients.pop(), sealer, prefix=prefix_of(url, "test")),
            cut_off=cut_off,
            lose_answers=lambda: between.lose_answers(asked=b"HSET"),
        )


@pytest.fixture(params=["fake", "valkey", "sentinel", "cluster"])
async def world(
    request: pytest.FixtureRequest, redis_servers: RedisServers, tmp_path: Path
) -> AsyncIterator[World]:
    if request.param == "fake":
        yield fake_world()
        return
    async with valkey_world(request.param, redis_servers, tmp_path) as made:
        yield made


def some_escrow(
    tenant: str = "acme", number: int = 13, kind: AttemptKind = AttemptKind.REFRESH
) -> Escrow:
    return Escrow(
        tenant=tenant, attempt=some_attempt(number=number, kind=kind), issued=some_issue()
    )


async def test_what_one_replica_keeps_another_finds_letter_for_letter(world: World) -> None:
    issued = replace(
        some_issue(),
        access_token=None,
        scopes=("accounts:read", "vendors:write"),
        scopes_source=ScopesSource.INTROSPECTION,
        subject="urn:pleo:company:1",
    )
    escrow = replace(
        some_escrow(kind=AttemptKind.IMPORT),
        issued=issued,
        import_fingerprint=b"\x00\xff",
        state_hash=b"\xff\x00",
    )

    assert await world.replica().put(escrow) is True

    assert await world.replica().find("acme") == [escrow]


async def test_every_attempt_has_a_slot_of_its_own(world: World) -> None:
    ours = world.replica()
    for number in (13, 14, 13):
        await ours.put(some_escrow(number=number))

    found = await ours.find("acme")

    assert found is not None
    assert sorted(each.attempt.number for each in found) == [13, 14]


async def test_a_tenants_escrows_are_no_other_tenants(world: World) -> None:
    ours = world.replica()
    for tenant in ("acme", "acme:2", "acme/a@b.c_d-e", "other"):
        await ours.put(some_escrow(tenant))

    found, everything = await ours.find("acme"), await ours.everything()

    assert found == [some_escrow("acme")]
    assert everything is not None
    assert {each.tenant for each in everything} == {"acme", "acme:2", "acme/a@b.c_d-e", "other"}


async def test_what_is_dropped_is_gone_and_what_is_read_stays(world: World) -> None:
    ours = world.replica()
    await ours.put(some_escrow(number=13))
    await ours.put(some_escrow(number=14))
    await ours.find("acme")

    await ours.drop(some_escrow(number=13))

    assert await ours.find("acme") == [some_escrow(number=14)]


async def test_hundreds_are_found_each_once(world: World) -> None:
    ours = world.replica()
    for number in range(700):
        await ours.put(some_escrow(f"tenant-{number % 7}", number))

    everything, found = await ours.everything(), await ours.find("tenant-3")

    assert everything is not None
    assert found is not None
    assert (len(everything), len(found)) == (700, 100)


async def test_unreachable_is_not_the_same_as_none(world: World) -> None:
    ours = world.replica()
    assert (await ours.find("acme"), await ours.everything()) == ([], [])

    world.cut_off()

    assert (await ours.find("acme"), await ours.everything()) == (None, None)
    assert await ours.put(some_escrow()) is False
    await ours.drop(some_escrow())


async def test_a_lost_answer_is_no_acknowledgement(world: World) -> None:
    ours = world.replica()

    world.lose_answers()

    assert await ours.put(some_escrow()) is False


async def test_nothing_lies_in_redis_in_clear(redis_url: str, tmp_path: Path) -> None:
    sealer = EscrowSealer(keyring_in(tmp_path))
    async with RedisClient(lambda: redis_url, times=QUICK) as client:
        await RedisEscrows(client, sealer, prefix=PREFIX).put(some_escrow())

    async with redis.asyncio.from_url(redis_url) as raw:
        (sealed,) = (await raw.hgetall(f"{PREFIX}escrows")).values()
    assert b"fake-" not in sealed


@pytest.mark.parametrize("field", ["acme|14", "other|13"])
async def test_a_copy_that_was_moved_elsewhere_is_no_escrow_of_there(
    field: str, redis_url: str, tmp_path: Path
) -> None:
    sealer = EscrowSealer(keyring_in(tmp_path))
    async with RedisClient(lambda: redis_url, times=QUICK) as client:
        ours = RedisEscrows(client, sealer, prefix=PREFIX)
        await ours.put(some_escrow())
        async with redis.asyncio.from_url(redis_url) as raw:
            await raw.hset(f"{PREFIX}escrows", field, await raw.hget(f"{PREFIX}escrows", "acme|13"))
            await raw.hdel(f"{PREFIX}escrows", "acme|13")

        assert await ours.find(field.partition("|")[0]) is None


async def test_a_copy_under_a_key_that_is_missing_here_is_not_called_none(
    redis_url: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with RedisClient(lambda: redis_url, times=QUICK) as client:
        theirs = RedisEscrows(client, EscrowSealer(keyring_in(elsewhere)), prefix=PREFIX)
        await theirs.put(some_escrow())
        ours = RedisEscrows(client, EscrowSealer(keyring_in(tmp_path)), prefix=PREFIX)

        assert await ours.find("acme") is None


ODD_FIELDS = [
    b"",
    b"|",
    b"acme|",
    b"acme|x",
    b"acme|-1",
    b"acme|" + b"9" * 5000,
    b"\xff|1",
    b"a b|1",
]


@pytest.mark.parametrize("field", ODD_FIELDS)
@pytest.mark.parametrize("value", [b"", b"x", b"\x00" * 100])
async def test_what_is_no_escrow_keeps_nobody_elses_waiting(
    field: bytes, value: bytes, redis_url: str, tmp_path: Path
) -> None:
    sealer = EscrowSealer(keyring_in(tmp_path))
    async with RedisClient(lambda: redis_url, times=QUICK) as client:
        ours = RedisEscrows(client, sealer, prefix=PREFIX)
        await ours.put(some_escrow("other"))
        async with redis.asyncio.from_url(redis_url) as raw:
            await raw.hset(f"{PREFIX}escrows", field, value)

        assert await ours.everything() == [some_escrow("other")]
        assert await ours.find("other") == [some_escrow("other")]
        assert await ours.find("acme") == (None if field.startswith(b"acme|") else [])


async def test_another_kind_of_value_in_the_place_of_all_is_not_called_none(
    redis_url: str, tmp_path: Path
) -> None:
    sealer = EscrowSealer(keyring_in(tmp_path))
    async with RedisClient(lambda: redis_url, times=QUICK) as client:
        ours = RedisEscrows(client, sealer, prefix=PREFIX)
        async with redis.asyncio.from_url(redis_url) as raw:
            await raw.set(f"{PREFIX}escrows", "no hash")

        assert (await ours.find("acme"), await ours.everything()) == (None, None)
        assert await ours.put(some_escrow()) is False
