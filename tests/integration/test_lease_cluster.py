"""A Redis Cluster: our slot is found, followed where it goes, and no node is taken for a Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import redis.asyncio
from redis.crc import key_slot

from broker.dev.rundir import RunDirectory
from broker.domain.escrow import Escrow
from broker.domain.facts import LeaseOutcome
from broker.lease.address import prefix_of
from broker.lease.announcements import RedisAnnouncements
from broker.lease.client import RedisClient
from broker.lease.escrows import RedisEscrows
from broker.lease.leases import RedisLeases
from broker.lease.slot import TAG
from broker.lease.status import RedisStatus, probe
from broker.ports import GrantMoved
from broker.store.escrow_sealing import EscrowSealer
from broker.store.sealing import Keyring, generate_keyset
from support.clusters import cluster
from support.fleet import until_true
from support.grants import some_attempt, some_issue
from support.redis_worlds import QUICK, ask, listening, until_answered
from support.sentinels import tell

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOVED = GrantMoved(tenant="acme", generation=7)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(run: RunDirectory) -> AsyncIterator[tuple[str, str]]:
    async with cluster(run, "moved") as made:
        yield made


def address_of(*nodes: str) -> str:
    return f"redis+cluster://{','.join(urlsplit(each).netloc for each in nodes)}"


async def told_by(url: str) -> RedisStatus:
    async with RedisClient(lambda: url, times=QUICK) as client:
        return await probe(client)


def _text(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.from_url(url, decode_responses=True)


async def move_our_slot(nodes: tuple[str, str]) -> None:
    """Moves it, and what is in it, from the first node to the second."""
    slot = key_slot(TAG.encode())
    async with _text(nodes[0]) as old, _text(nodes[1]) as new:
        ids = [str(await tell(each, "CLUSTER MYID")) for each in (old, new)]
        await tell(new, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        await tell(old, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        for key in await old.keys():
            port = urlsplit(nodes[1]).port or 0
            await tell(old, "MIGRATE", "127.0.0.1", port, str(key), 0, 5000)
        for each in (new, old):
            await tell(each, "CLUSTER", "SETSLOT", slot, "NODE", ids[1])


async def test_a_node_under_a_plain_address_is_told_from_a_redis(nodes: tuple[str, str]) -> None:
    assert [(await told_by(each)).is_cluster for each in nodes] == [True, True]


async def test_a_node_refuses_a_numbered_database(nodes: tuple[str, str]) -> None:
    assert (await told_by(f"{nodes[0].rpartition('/')[0]}/1")).is_refusing


async def test_a_lease_under_a_plain_address_is_a_redis_that_is_away(
    nodes: tuple[str, str],
) -> None:
    async with RedisClient(lambda: nodes[1], times=QUICK) as client:
        leases = RedisLeases(client, prefix=prefix_of(address_of(nodes[1]), "test"))

        assert await ask(leases, "acme") is LeaseOutcome.UNREACHABLE


async def test_a_cluster_is_asked_at_whichever_node_is_there(nodes: tuple[str, str]) -> None:
    status = await told_by(address_of("redis://127.0.0.1:1", nodes[1]))

    assert (status.is_reachable, status.is_cluster, status.maxmemory_policy) == (
        True,
        False,
        "noeviction",
    )


async def test_what_is_no_cluster_is_a_redis_that_is_away(redis_server: str) -> None:
    address = redis_server if redis_server.startswith("redis:") else "redis://127.0.0.1:1"

    assert not (await told_by(address_of(address))).is_reachable


async def test_leases_news_and_pairs_go_where_our_slot_goes(
    nodes: tuple[str, str], tmp_path: Path
) -> None:
    path, url = tmp_path / "keyset.json", address_of(*nodes)
    path.write_text(generate_keyset())
    prefix = prefix_of(url, "test")
    kept = Escrow(tenant="acme", attempt=some_attempt(), issued=some_issue())
    async with RedisClient(lambda: url, times=QUICK) as client:
        leases, announcements = (
            RedisLeases(client, prefix=prefix),
            RedisAnnouncements(client, prefix=prefix),
        )
        escrows = RedisEscrows(client, EscrowSealer(Keyring.from_file(path)), prefix=prefix)
        async with listening(announcements) as ears:
            assert await ask(leases, "acme") is LeaseOutcome.ACQUIRED
            assert await escrows.put(kept)

            await move_our_slot(nodes)

            await until_answered(leases, "acme", LeaseOutcome.ACQUIRED)
            assert await escrows.find("acme") == [kept]
            await announcements.announce(MOVED)
            await ears.until(MOVED)


async def test_pairs_are_found_again_though_no_lease_is_asked_for(
    nodes: tuple[str, str], tmp_path: Path
) -> None:
    path, url = tmp_path / "keyset.json", address_of(*nodes)
    path.write_text(generate_keyset())
    async with RedisClient(lambda: url, times=QUICK) as client:
        prefix = prefix_of(url, "test")
        escrows = RedisEscrows(client, EscrowSealer(Keyring.from_file(path)), prefix=prefix)
        assert await escrows.find("other") == []

        await move_our_slot((nodes[1], nodes[0]))

        async def is_found() -> bool:
            return await escrows.find("other") == []

        await until_true(is_found)
